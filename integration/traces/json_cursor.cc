#include "integration/traces/json_cursor.h"

#include "integration/traces/text_number.h"

namespace foretoken::traces {
namespace {

constexpr int kDepthMax = 100;

void AppendUtf8(uint32_t point, std::string& out) {
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0 | point >> 6);
    out += static_cast<char>(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | point >> 12);
    out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (point & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | point >> 18);
    out += static_cast<char>(0x80 | (point >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (point & 0x3F));
  }
}

// The four hexadecimal digits at i.
bool Hex4(std::string_view raw, size_t i, uint32_t& out) {
  if (raw.size() < i + 4) return false;
  out = 0;
  for (size_t k = i; k < i + 4; ++k) {
    const char c = raw[k];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return false;
    out = out * 16 + static_cast<uint32_t>(digit);
  }
  return true;
}

}  // namespace

void JsonCursor::SkipSpace() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
}

bool JsonCursor::FailAt(size_t at, std::string_view rule) {
  if (failed_) return false;
  failed_ = true;
  error_at_ = at;
  rule_ = at >= text_.size() ? "the text ends here: " + std::string(rule) : std::string(rule);
  return false;
}

bool JsonCursor::Fail(std::string_view rule) { return FailAt(value_at_, rule); }

std::string_view JsonCursor::error_value() const {
  const std::string_view rest = text_.substr(error_at_);
  const size_t end = rest.find_first_of(",]}\n", 1);
  return rest.substr(0, end);
}

bool JsonCursor::Begin(char open, std::string_view rule) {
  if (failed_) return false;
  SkipSpace();
  value_at_ = at_;
  if (at_ >= text_.size() || text_[at_] != open) return FailAt(at_, rule);
  ++at_;
  first_ = true;
  return true;
}

// Whether another element follows; consumes the comma before it, or the close.
bool JsonCursor::More(char close, bool& more) {
  SkipSpace();
  if (at_ >= text_.size()) return FailAt(at_, close == '}' ? "'}' is missing" : "']' is missing");
  if (text_[at_] == close) {
    ++at_;
    first_ = false;
    more = false;
    return true;
  }
  if (!first_) {
    if (text_[at_] != ',') return FailAt(at_, close == '}' ? "',' or '}' is needed here" : "',' or ']' is needed here");
    ++at_;
  }
  first_ = false;
  more = true;
  return true;
}

bool JsonCursor::NextKey(std::string_view& key) {
  bool more = false;
  if (failed_ || !More('}', more) || !more) return false;
  SkipSpace();
  if (!RawText(key)) return FailAt(at_, "a key in double quotes is needed here");
  SkipSpace();
  if (at_ >= text_.size() || text_[at_] != ':') return FailAt(at_, "':' is needed here");
  ++at_;
  return true;
}

bool JsonCursor::NextElement() {
  bool more = false;
  return !failed_ && More(']', more) && more;
}

bool JsonCursor::RawText(std::string_view& raw) {
  if (at_ >= text_.size() || text_[at_] != '"') return false;
  const size_t begin = at_ + 1;
  for (size_t i = begin; i < text_.size(); ++i) {
    if (text_[i] == '\\') {
      ++i;
    } else if (text_[i] == '"') {
      raw = text_.substr(begin, i - begin);
      at_ = i + 1;
      return true;
    } else if (static_cast<unsigned char>(text_[i]) < 0x20) {
      break;
    }
  }
  return false;
}

std::string_view JsonCursor::RawNumber() {
  const size_t begin = at_;
  while (at_ < text_.size() && ((text_[at_] >= '0' && text_[at_] <= '9') || text_[at_] == '-' || text_[at_] == '+' ||
                                text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E'))
    ++at_;
  return text_.substr(begin, at_ - begin);
}

bool JsonCursor::Number(int scale, int64_t least, int64_t& out) {
  if (failed_) return false;
  SkipSpace();
  value_at_ = at_;
  switch (ParseScaled(RawNumber(), scale, scale == 0, out)) {
    case NumberError::kNotANumber: return Fail("must be a number");
    case NumberError::kNotWhole: return Fail("must be a whole number");
    case NumberError::kTooLarge: return Fail("is too large");
    case NumberError::kNone: break;
  }
  if (out < least) return Fail("must be at least " + std::to_string(least));
  return true;
}

bool JsonCursor::Escape(std::string_view raw, size_t& i, std::string& out) {
  constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
  const char c = raw[i];
  if (const size_t known = kFrom.find(c); known != std::string_view::npos) {
    out += kTo[known];
    return true;
  }
  uint32_t point = 0;
  if (c != 'u' || !Hex4(raw, i + 1, point)) return false;
  i += 4;
  if (point >= 0xD800 && point < 0xE000) {  // a surrogate pair
    uint32_t low = 0;
    if (point >= 0xDC00 || raw.substr(i + 1, 2) != "\\u" || !Hex4(raw, i + 3, low) || low < 0xDC00 || low > 0xDFFF)
      return false;
    i += 6;
    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
  }
  AppendUtf8(point, out);
  return true;
}

bool JsonCursor::Text(std::string& out) {
  if (failed_) return false;
  SkipSpace();
  value_at_ = at_;
  std::string_view raw;
  if (!RawText(raw)) return Fail("must be a text in double quotes");
  out.clear();
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out += raw[i];
    } else if (!Escape(raw, ++i, out)) {
      return Fail("has an escape that JSON does not know");
    }
  }
  return true;
}

bool JsonCursor::NumberOrText(std::string& out) {
  if (failed_) return false;
  SkipSpace();
  if (at_ < text_.size() && text_[at_] == '"') return Text(out);
  value_at_ = at_;
  out = std::string(RawNumber());
  return !out.empty() || Fail("must be a text or a number");
}

bool JsonCursor::Null() {
  SkipSpace();
  if (failed_ || text_.substr(at_, 4) != "null") return false;
  at_ += 4;
  return true;
}

bool JsonCursor::AtArray() {
  SkipSpace();
  return !failed_ && at_ < text_.size() && text_[at_] == '[';
}

bool JsonCursor::Literal() {
  for (const std::string_view word :
       {"true", "false", "null", "NaN", "Infinity", "-Infinity"}) {  // Python writes the last three
    if (text_.substr(at_, word.size()) == word) {
      at_ += word.size();
      return true;
    }
  }
  return !RawNumber().empty();
}

bool JsonCursor::Skip() {
  if (failed_) return false;
  char open[kDepthMax];
  int depth = 0;
  do {
    if (depth > 0) {
      std::string_view key;
      const bool object = open[depth - 1] == '{';
      if (!(object ? NextKey(key) : NextElement())) {
        if (failed_) return false;
        --depth;
        continue;
      }
    }
    SkipSpace();
    value_at_ = at_;
    if (at_ >= text_.size()) return FailAt(at_, "a value is needed here");
    const char c = text_[at_];
    std::string_view raw;
    if (c == '{' || c == '[') {
      if (depth == kDepthMax) return Fail("is nested more than 100 deep");
      open[depth++] = c;
      ++at_;
      first_ = true;
    } else if (c == '"' ? !RawText(raw) : !Literal()) {
      return Fail("is not a JSON value");
    }
  } while (depth > 0);
  return true;
}

bool JsonCursor::End() {
  if (failed_) return false;
  SkipSpace();
  return at_ == text_.size() || FailAt(at_, "nothing may follow the value");
}

}  // namespace foretoken::traces
