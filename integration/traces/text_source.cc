#include "integration/traces/text_source.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "integration/traces/text_number.h"

namespace foretoken::traces {
namespace {

constexpr unsigned kPiece = 1 << 18;

gzFile AsGz(void* file) { return static_cast<gzFile>(file); }

}  // namespace

void TextSource::Close::operator()(void* file) const {
  if (file != nullptr) gzclose(AsGz(file));
}

Result<TextSource> TextSource::Open(const std::string& path) {
  std::error_code code;
  const auto kind = std::filesystem::status(path, code).type();
  if (kind == std::filesystem::file_type::not_found) return Error{path + ": no such file"};
  if (kind == std::filesystem::file_type::directory) return Error{path + ": is a directory; name a trace file in it"};
  errno = 0;
  void* file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return Error{path + ": cannot be opened: " + std::strerror(errno)};
  gzbuffer(AsGz(file), kPiece);
  return TextSource(path, file);
}

Result<bool> TextSource::Fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  const size_t held = buffer_.size();
  buffer_.resize(held + kPiece);
  const int got = gzread(AsGz(file_.get()), buffer_.data() + held, kPiece);
  buffer_.resize(held + static_cast<size_t>(got > 0 ? got : 0));
  int code = Z_OK;
  const char* text = gzerror(AsGz(file_.get()), &code);
  if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
    return Error{path_ + ": cannot be read: " + (code == Z_ERRNO ? std::strerror(errno) : text)};
  at_end_ = got == 0;
  return got > 0;
}

Result<std::string_view> TextSource::Peek(size_t count) {
  while (buffer_.size() - begin_ < count) {
    const Result<bool> more = Fill();
    if (!more.ok()) return more.error();
    if (!*more) break;
  }
  return std::string_view(buffer_).substr(begin_, count);
}

Result<bool> TextSource::Next(std::string_view& line) {
  size_t searched = 0;
  for (;;) {
    const size_t end = buffer_.find('\n', begin_ + searched);
    const bool found = end != std::string::npos;
    const size_t length = (found ? end : buffer_.size()) - begin_;
    if (length > kLineLimit) {
      return TraceError(path_, line_ + 1, kLineLimit, std::string_view(buffer_).substr(begin_, 64),
                        "a line may have at most 1 MiB: is this a trace file?");
    }
    if (!found) {
      searched = length;
      const Result<bool> more = Fill();
      if (!more.ok()) return more.error();
      if (*more) continue;
      if (length == 0) return false;
    }
    line = std::string_view(buffer_).substr(begin_, length);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    begin_ += length + (found ? 1 : 0);
    ++line_;
    return true;
  }
}

Result<std::string> TextSource::Rest(size_t limit) {
  for (;;) {
    if (buffer_.size() - begin_ > limit) return Error{path_ + ": has more than " + std::to_string(limit >> 20) + " MiB"};
    const Result<bool> more = Fill();
    if (!more.ok()) return more.error();
    if (!*more) break;
  }
  std::string rest = buffer_.substr(begin_);
  begin_ = buffer_.size();
  return rest;
}

}  // namespace foretoken::traces
