#include "integration/http/http_message.h"

#include <algorithm>
#include <charconv>

namespace foretoken {
namespace {

bool SameName(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

// Calls `use(name, value)` for each field.
template <class Use>
void ForEachField(std::string_view fields, const Use& use) {
  while (!fields.empty()) {
    const size_t end = std::min(fields.find('\n'), fields.size() - 1);
    const std::string_view line = fields.substr(0, end);
    fields.remove_prefix(end + 1);
    if (const size_t colon = line.find(':'); colon != line.npos) use(line.substr(0, colon), Trim(line.substr(colon + 1)));
  }
}

std::string_view Word(std::string_view line, int index) {
  for (; index > 0; --index) {
    const size_t space = line.find(' ');
    if (space == line.npos) return {};
    line.remove_prefix(space + 1);
  }
  return line.substr(0, line.find(' '));
}

}  // namespace

std::string_view HttpHead::Field(std::string_view name) const {
  std::optional<std::string_view> found;
  ForEachField(fields, [&](std::string_view n, std::string_view v) {
    if (!found && SameName(n, name)) found = v;
  });
  return found.value_or(std::string_view());
}

int HttpHead::status() const {
  int code = 0;
  const std::string_view word = Word(first_line, 1);
  if (first_line.starts_with("HTTP/")) std::from_chars(word.data(), word.data() + word.size(), code);
  return code;
}

std::string_view HttpHead::method() const { return Word(first_line, 0); }
std::string_view HttpHead::target() const { return Word(first_line, 1); }

Result<std::optional<HttpHead>> ParseHead(std::string_view text) {
  const size_t end = text.find("\r\n\r\n");
  if (end == text.npos) return std::optional<HttpHead>();
  HttpHead head;
  head.size = end + 4;
  const size_t line = text.find("\r\n");
  head.first_line = text.substr(0, line);
  head.fields = text.substr(line + 2, end + 2 - (line + 2));
  bool bad = false;
  ForEachField(head.fields, [&](std::string_view name, std::string_view value) {
    if (SameName(name, "content-length")) {
      uint64_t n = 0;
      const auto r = std::from_chars(value.data(), value.data() + value.size(), n);
      bad = bad || r.ec != std::errc() || r.ptr != value.data() + value.size();
      head.content_length = n;
    } else if (SameName(name, "transfer-encoding")) {
      head.chunked = SameName(value, "chunked");
    } else if (SameName(name, "connection")) {
      head.close = SameName(value, "close");
    }
  });
  if (bad) return Error{"content-length is not a number"};
  return std::optional<HttpHead>(head);
}

BodyDecoder BodyDecoder::Of(const HttpHead& head, bool of_request) {
  BodyDecoder d;
  if (head.chunked) {
    d.state_ = State::kChunkSize;
  } else if (head.content_length) {
    d.left_ = *head.content_length;
    d.state_ = d.left_ == 0 ? State::kDone : State::kLength;
  } else if (!of_request && head.status() != 204 && head.status() != 304) {
    d.state_ = State::kUntilClose;
  }
  return d;
}

void BodyDecoder::OnLine(std::string_view line) {
  if (state_ == State::kTrailer) {
    if (line.empty()) state_ = State::kDone;
    return;
  }
  if (state_ == State::kChunkEnd) {
    state_ = line.empty() ? State::kChunkSize : State::kMalformed;
    return;
  }
  const std::string_view size = Trim(line.substr(0, line.find(';')));
  const auto r = std::from_chars(size.data(), size.data() + size.size(), left_, 16);
  if (r.ec != std::errc() || r.ptr != size.data() + size.size() || size.empty()) {
    state_ = State::kMalformed;
  } else {
    state_ = left_ == 0 ? State::kTrailer : State::kChunk;
  }
}

size_t BodyDecoder::FeedLine(std::string_view wire) {
  const size_t end = wire.find('\n');
  if (end == wire.npos) {
    line_.append(wire);
    if (line_.size() > 1'024) state_ = State::kMalformed;
    return wire.size();
  }
  if (line_.empty()) {
    OnLine(Trim(wire.substr(0, end)));
  } else {
    line_.append(wire.substr(0, end));
    const std::string line = std::move(line_);
    line_.clear();
    OnLine(Trim(line));
  }
  return end + 1;
}

size_t BodyDecoder::Feed(std::string_view wire, std::string& out) {
  size_t used = 0;
  while (used < wire.size() && state_ != State::kDone && state_ != State::kMalformed) {
    const std::string_view rest = wire.substr(used);
    if (state_ == State::kUntilClose) {
      out.append(rest);
      return wire.size();
    }
    if (state_ != State::kLength && state_ != State::kChunk) {
      used += FeedLine(rest);
      continue;
    }
    const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, rest.size()));
    out.append(rest.substr(0, n));
    used += n;
    left_ -= n;
    if (left_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kChunkEnd;
  }
  return used;
}

}  // namespace foretoken
