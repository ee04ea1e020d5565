#include "integration/traces/trace_builder.h"

#include <cmath>
#include <limits>

#include "integration/traces/text_number.h"
#include "runtime/base/prng.h"

namespace foretoken::traces {
namespace {

constexpr uint64_t kNamedContent = uint64_t{1} << 63;

// "c:" and 16 hexadecimal digits: content as a number, as TraceRow writes it.
bool RawContent(std::string_view name, uint64_t& out) {
  if (name.size() != 18 || name.substr(0, 2) != "c:") return false;
  out = 0;
  for (const char c : name.substr(2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    out = out << 4 | static_cast<uint64_t>(digit);
  }
  return (out & kNamedContent) != 0;
}

// "out:r7" -> "r7"; empty if the name is not of a request.
std::string_view RequestOf(std::string_view name) {
  if (name.substr(0, 4) == "out:") return name.substr(4);
  if (name.substr(0, 2) == "p:") return name.substr(2);
  return {};
}

}  // namespace

uint64_t ContentOfName(std::string_view name) {
  uint64_t content = 0;
  if (RawContent(name, content)) return content;
  uint64_t hash = 0xCBF29CE484222325ull;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return Mix64(hash) | kNamedContent;
}

uint64_t ContentOfHash(int64_t hash) { return Mix64(static_cast<uint64_t>(hash), 0x4A5) | kNamedContent; }

Error TraceBuilder::At(size_t line, size_t column, std::string_view value, std::string_view rule) const {
  return TraceError(file_, line, column, value, rule);
}

Status TraceBuilder::Add(int64_t arrival_ns, TraceRequest request, RowPlace place) {
  const bool first = out_.trace.requests.empty();
  if (first) first_ns_ = relative_ ? 0 : arrival_ns;
  if (!first && arrival_ns < last_ns_) {
    return At(place.line, place.column, std::to_string(arrival_ns) + " ns",
              "arrives before the request above it; sort the file by time of arrival");
  }
  if (relative_ && arrival_ns < 0)
    return At(place.line, place.column, std::to_string(arrival_ns) + " ns", "must be at least 0");
  last_ns_ = arrival_ns;
  int64_t since = arrival_ns - first_ns_;
  if (options_.rate_scale != 1) {
    // long double: 64 bits of mantissa hold the nanoseconds exactly, so the quotient is rounded once.
    const long double scaled = static_cast<long double>(since) / static_cast<long double>(options_.rate_scale);
    if (scaled > static_cast<long double>(std::numeric_limits<int64_t>::max() / 2))
      return At(place.line, place.column, std::to_string(since) + " ns", "is beyond 146 years at this rate scale");
    since = std::llroundl(scaled);
  }
  request.meta.id = next_id();
  request.meta.arrival = Instant::FromNanos(since);
  out_.trace.requests.push_back(std::move(request));
  return {};
}

void TraceBuilder::Name(std::string id) { ids_.emplace(std::move(id), next_id().value()); }

void TraceBuilder::AddSegment(TraceRequest& request, std::string_view name, int64_t tokens) {
  if (!RequestOf(name).empty())
    pending_.push_back({out_.trace.requests.size(), request.meta.segments.size(), std::string(name)});
  request.meta.segments.push_back({ContentOfName(name), TokenCount(tokens)});
}

void TraceBuilder::AddHashes(TraceRequest& request, const std::vector<int64_t>& hashes, int64_t block) const {
  int64_t left = request.meta.prompt_tokens.value();
  request.meta.segments.reserve(hashes.size() + 1);
  for (size_t i = 0; i < hashes.size() && left > 0; ++i) {
    const int64_t tokens = std::min(left, block);
    request.meta.segments.push_back({ContentOfHash(hashes[i]), TokenCount(tokens)});
    left -= tokens;
  }
  if (left > 0) request.meta.segments.push_back({PrivateContent(next_id()), TokenCount(left)});
}

Result<LoadedTrace> TraceBuilder::Finish(TraceFormat format) {
  if (out_.trace.requests.empty()) {
    return Error{file_ + ": holds no request" +
                 (out_.skipped == 0 ? std::string() : " with an output (" + std::to_string(out_.skipped) + " without)")};
  }
  for (const Pending& p : pending_) {
    if (p.request >= out_.trace.requests.size()) continue;
    const auto found = ids_.find(std::string(RequestOf(p.name)));
    if (found == ids_.end()) continue;
    const RequestId id(found->second);
    out_.trace.requests[p.request].meta.segments[p.segment].content = p.name[0] == 'o' ? OutputContent(id) : PrivateContent(id);
  }
  out_.format = format;
  const size_t slash = file_.find_last_of('/');
  out_.trace.name = slash == std::string::npos ? file_ : file_.substr(slash + 1);
  return std::move(out_);
}

}  // namespace foretoken::traces
