// The log file of a RECORDER: appended, never rewritten; framing as on connections. LogWriter: bounded in size, flushed to the system by
// Flush and to the disk by Sync, so that a killed process loses what came since the last Flush, a lost machine since the last Sync.
// LogReader: hands the records back in order; what is cut off at the end is not an error.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "integration/transport/frame_assembler.h"
#include "runtime/base/result.h"
#include "schema/record.h"

namespace foretoken {

class LogWriter {
 public:
  LogWriter() = default;
  LogWriter(LogWriter&& other) noexcept;
  LogWriter& operator=(LogWriter&&) = delete;
  ~LogWriter();

  // A new file: one that exists is not touched. Error: the path, and why not.
  static Result<LogWriter> Create(const std::string& path, uint64_t bytes_max);

  // False: the log is full (said in its last record), or the disk is (see error()).
  bool Append(const LogRecord& record);
  bool Flush();
  bool Sync();
  uint64_t bytes() const { return bytes_; }
  uint64_t records() const { return records_; }
  uint64_t dropped() const { return dropped_; }  // records that came after the log was full
  const std::string& error() const { return error_; }

 private:
  bool Put(const LogRecord& record);

  int fd_ = -1;
  uint64_t bytes_max_ = 0;
  uint64_t bytes_ = 0;
  uint64_t records_ = 0;
  uint64_t dropped_ = 0;
  bool full_ = false;
  std::string error_;
  std::vector<std::byte> buffer_;
};

class LogReader {
 public:
  // Error: the path, and why it cannot be read.
  static Result<LogReader> Open(const std::string& path);

  // False: the end. `damaged` then says whether it is one that no writer leaves: a record that does not decode.
  bool Next(LogRecord& out);
  const std::string& damaged() const { return damaged_; }
  uint64_t records() const { return records_; }

 private:
  std::ifstream in_;
  FrameAssembler assembler_{kFrameBytesMax};
  std::string damaged_;
  uint64_t records_ = 0;
};

}  // namespace foretoken
