#include "integration/recorder/log_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace foretoken {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr uint64_t kRoomForTheEnd = 64;  // of the record that says that the log is full

}  // namespace

LogWriter::LogWriter(LogWriter&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      bytes_max_(other.bytes_max_),
      bytes_(other.bytes_),
      records_(other.records_),
      dropped_(other.dropped_),
      full_(other.full_),
      error_(std::move(other.error_)),
      buffer_(std::move(other.buffer_)) {}

LogWriter::~LogWriter() {
  if (fd_ < 0) return;
  Sync();
  close(fd_);
}

Result<LogWriter> LogWriter::Create(const std::string& path, uint64_t bytes_max) {
  LogWriter w;
  w.bytes_max_ = bytes_max;
  w.fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (w.fd_ < 0) return Error{path + ": cannot be created: " + std::strerror(errno)};
  return w;
}

bool LogWriter::Put(const LogRecord& record) {
  const auto frame = EncodeRecord(record);
  if (!frame.ok()) {
    error_ = frame.error().message;
    return false;
  }
  const bool end = std::holds_alternative<FullRecord>(record.body);
  if (bytes_ + frame->size() + (end ? 0 : kRoomForTheEnd) > bytes_max_) return false;
  buffer_.insert(buffer_.end(), frame->begin(), frame->end());
  bytes_ += frame->size();
  ++records_;
  return buffer_.size() < kBufferBytes || Flush();
}

bool LogWriter::Append(const LogRecord& record) {
  if (full_) {
    ++dropped_;
    return false;
  }
  if (Put(record)) return true;
  full_ = true;
  ++dropped_;
  Put({record.at, record.scheduler, FullRecord{}});
  return false;
}

bool LogWriter::Flush() {
  for (size_t at = 0; at < buffer_.size();) {
    const ssize_t n = write(fd_, buffer_.data() + at, buffer_.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error_ = std::string("cannot be written: ") + std::strerror(errno);
      full_ = true;
      buffer_.clear();
      return false;
    }
    at += static_cast<size_t>(n);
  }
  buffer_.clear();
  return true;
}

bool LogWriter::Sync() { return Flush() && fdatasync(fd_) == 0; }

Result<LogReader> LogReader::Open(const std::string& path) {
  LogReader r;
  r.in_.open(path, std::ios::binary);
  if (!r.in_) return Error{path + ": cannot be read: " + std::strerror(errno)};
  return r;
}

bool LogReader::Next(LogRecord& out) {
  while (damaged_.empty()) {
    if (const auto frame = assembler_.Next(); !frame.empty()) {
      auto record = DecodeRecord(frame);
      if (!record.ok()) {
        damaged_ = "record " + std::to_string(records_ + 1) + ": " + record.error().message;
        return false;
      }
      ++records_;
      out = std::move(record).value();
      return true;
    }
    if (!assembler_.broken_rule().empty()) {
      damaged_ = "after record " + std::to_string(records_) + ": not a record: " + std::string(assembler_.broken_rule());
      return false;
    }
    std::vector<std::byte> more(1 << 20);
    in_.read(reinterpret_cast<char*>(more.data()), static_cast<std::streamsize>(more.size()));
    const auto got = static_cast<size_t>(in_.gcount());
    if (got == 0) return false;
    assembler_.Append({more.data(), got});
  }
  return false;
}

}  // namespace foretoken
