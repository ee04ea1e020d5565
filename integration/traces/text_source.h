// A text file read piece by piece, plain or gzip-compressed: lines of bounded length, so that a file of any size (or one that
// is not text at all) costs bounded memory.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace foretoken::traces {

class TextSource {
 public:
  static constexpr size_t kLineLimit = 1 << 20;  // bytes; real lines of traces have at most some 100 KB

  // Error: there is no such file, or it is a directory.
  static Result<TextSource> Open(const std::string& path);

  // The bytes that come next, at most `count`, without taking them.
  Result<std::string_view> Peek(size_t count);
  // The next line without its end ("\n" or "\r\n"; the last one may lack it); false after the last. Valid until the next call.
  // Error: a line above kLineLimit, or a damaged or cut-off gzip stream.
  Result<bool> Next(std::string_view& line);
  // Everything that is left. Error: more than `limit` bytes.
  Result<std::string> Rest(size_t limit);

  const std::string& path() const { return path_; }
  size_t line() const { return line_; }  // number of the line that Next gave last, from 1

 private:
  struct Close {
    void operator()(void* file) const;
  };
  TextSource(std::string path, void* file) : path_(std::move(path)), file_(file) {}
  // Reads more behind what is held; false at the end of the file.
  Result<bool> Fill();

  std::string path_;
  std::unique_ptr<void, Close> file_;  // gzFile
  std::string buffer_;
  size_t begin_ = 0;  // of what is not yet given out
  size_t line_ = 0;
  bool at_end_ = false;
};

}  // namespace foretoken::traces
