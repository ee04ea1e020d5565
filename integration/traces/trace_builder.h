// TraceBuilder: what all formats have in common once a row is read: order of time, scaling, numbering, limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "integration/traces/json_cursor.h"
#include "integration/traces/load_trace.h"
#include "integration/traces/text_source.h"

namespace foretoken::traces {

// Where a row stands in its file.
struct RowPlace {
  size_t line = 0;
  size_t column = 1;  // of the arrival time
};

class TraceBuilder {
 public:
  // `relative`: the file's times count from 0 already.
  TraceBuilder(std::string file, const LoadTraceOptions& options, bool relative)
      : file_(std::move(file)), options_(options), relative_(relative) {}

  bool full() const { return options_.limit != 0 && out_.trace.requests.size() >= options_.limit; }
  // The id that the next request gets.
  RequestId next_id() const { return RequestId(out_.trace.requests.size() + 1); }
  // Takes the request, sets its id and its arrival (ns as in the file). Error: time goes backwards or is beyond the range.
  Status Add(int64_t arrival_ns, TraceRequest request, RowPlace place);
  void Skip() { ++out_.skipped; }

  // Prompt parts by name: "out:<id>" and "p:<id>" of a request of this file, or any other name. Names of requests are resolved
  // at the end: a later row may be meant.
  void Name(std::string id);  // of the next request; Known() told that it is new
  bool Known(const std::string& id) const { return ids_.count(id) != 0; }
  void AddSegment(TraceRequest& request, std::string_view name, int64_t tokens);
  // The parts that hash ids stand for: `block` tokens each, the last one cut at the prompt's end; what is left is private.
  void AddHashes(TraceRequest& request, const std::vector<int64_t>& hashes, int64_t block) const;

  // Error: no request at all.
  Result<LoadedTrace> Finish(TraceFormat format);

  Error At(size_t line, size_t column, std::string_view value, std::string_view rule) const;
  // What `json` complains of, as found in this line.
  Error Of(const JsonCursor& json, size_t line) const {
    return At(line, json.error_at() + 1, json.error_value(), json.error_rule());
  }
  const LoadTraceOptions& options() const { return options_; }

 private:
  struct Pending {
    size_t request;
    size_t segment;
    std::string name;
  };
  std::string file_;
  LoadTraceOptions options_;
  bool relative_;
  LoadedTrace out_;
  std::unordered_map<std::string, uint64_t> ids_;  // looked up only
  std::vector<Pending> pending_;
  int64_t first_ns_ = 0;
  int64_t last_ns_ = 0;
};

// A number for content with this name: top bit set.
uint64_t ContentOfName(std::string_view name);
uint64_t ContentOfHash(int64_t hash);

// The readers, one per format; the source stands at the file's first byte.
Result<LoadedTrace> ReadCsvTrace(TextSource& source, TraceFormat format, const LoadTraceOptions& options);
Result<LoadedTrace> ReadMooncake(TextSource& source, const LoadTraceOptions& options);
Result<LoadedTrace> ReadJsonl(TextSource& source, const LoadTraceOptions& options);
Result<LoadedTrace> ReadVllmSteps(TextSource& source, const LoadTraceOptions& options);
Result<LoadedTrace> ReadShareGpt(TextSource& source, const LoadTraceOptions& options);
Result<LoadedTrace> ReadVllmBench(TextSource& source, const LoadTraceOptions& options);

}  // namespace foretoken::traces
