#include "integration/engines/vllm/python_json.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

namespace foretoken {
namespace {

constexpr int kMaxDepth = 64;  // engine traces and step records nest four deep

void AppendUtf8(uint32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<JsonValue> Document() {
    JsonValue value;
    if (!Value(value, 0)) return Failure();
    SkipSpace();
    if (at_ != text_.size()) return Expected("the end of the line"), Failure();
    return value;
  }

 private:
  Error Failure() const { return Error{"column " + std::to_string(at_ + 1) + ": expected " + expected_}; }
  bool Expected(const char* what) {
    expected_ = what;
    return false;
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void SkipSpace() {
    while (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r') ++at_;
  }
  bool Take(char c) {
    SkipSpace();
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  bool Word(std::string_view word, JsonValue::Kind kind, JsonValue& out) {
    if (text_.substr(at_, word.size()) != word) return Expected("a JSON value");
    at_ += word.size();
    out.kind = kind;
    if (kind == JsonValue::Kind::kBool) out.text = word;
    return true;
  }

  bool Value(JsonValue& out, int depth) {
    if (depth > kMaxDepth) return Expected("less nesting");
    SkipSpace();
    switch (Peek()) {
      case '{': return Object(out, depth);
      case '[': return Array(out, depth);
      case '"': out.kind = JsonValue::Kind::kString; return String(out.text);
      case 't': return Word("true", JsonValue::Kind::kBool, out);
      case 'f': return Word("false", JsonValue::Kind::kBool, out);
      case 'n': return Word("null", JsonValue::Kind::kNull, out);
      default: return Number(out);
    }
  }

  bool Object(JsonValue& out, int depth) {
    out.kind = JsonValue::Kind::kObject;
    ++at_;
    if (Take('}')) return true;
    do {
      SkipSpace();
      if (Peek() != '"') return Expected("a key in double quotes");
      out.keys.emplace_back();
      if (!String(out.keys.back())) return false;
      if (!Take(':')) return Expected("':'");
      out.values.emplace_back();
      if (!Value(out.values.back(), depth + 1)) return false;
    } while (Take(','));
    return Take('}') || Expected("',' or '}'");
  }

  bool Array(JsonValue& out, int depth) {
    out.kind = JsonValue::Kind::kArray;
    ++at_;
    if (Take(']')) return true;
    do {
      out.values.emplace_back();
      if (!Value(out.values.back(), depth + 1)) return false;
    } while (Take(','));
    return Take(']') || Expected("',' or ']'");
  }

  bool Digits() {
    if (Peek() < '0' || Peek() > '9') return false;
    while (Peek() >= '0' && Peek() <= '9') ++at_;
    return true;
  }

  bool Number(JsonValue& out) {
    const size_t from = at_;
    if (Peek() == '-') ++at_;
    const bool leading_zero = Peek() == '0';
    const size_t first = at_;
    if (!Digits()) return Expected("a JSON value");
    if (leading_zero && at_ - first > 1) return Expected("a number without leading zeros");
    if (Peek() == '.') {
      ++at_;
      if (!Digits()) return Expected("a digit after '.'");
    }
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (Peek() == '+' || Peek() == '-') ++at_;
      if (!Digits()) return Expected("a digit of the exponent");
    }
    out.kind = JsonValue::Kind::kNumber;
    out.text = text_.substr(from, at_ - from);
    return true;
  }

  bool Hex4(uint32_t& out) {
    if (at_ + 4 > text_.size()) return Expected("four hexadecimal digits");
    const char* from = text_.data() + at_;
    const auto [end, error] = std::from_chars(from, from + 4, out, 16);
    if (error != std::errc() || end != from + 4) return Expected("four hexadecimal digits");
    at_ += 4;
    return true;
  }

  bool UnicodeEscape(std::string& out) {
    uint32_t c = 0;
    if (!Hex4(c)) return false;
    if (c >= 0xDC00 && c < 0xE000) return Expected("a high surrogate first");
    if (c >= 0xD800 && c < 0xDC00) {
      uint32_t low = 0;
      if (text_.substr(at_, 2) != "\\u") return Expected("the low surrogate");
      at_ += 2;
      if (!Hex4(low)) return false;
      if (low < 0xDC00 || low >= 0xE000) return Expected("a low surrogate");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    AppendUtf8(c, out);
    return true;
  }

  bool Escape(std::string& out) {
    const char c = Peek();
    ++at_;
    switch (c) {
      case '"':
      case '\\':
      case '/': out += c; return true;
      case 'b': out += '\b'; return true;
      case 'f': out += '\f'; return true;
      case 'n': out += '\n'; return true;
      case 'r': out += '\r'; return true;
      case 't': out += '\t'; return true;
      case 'u': return UnicodeEscape(out);
      default: --at_; return Expected("an escape of JSON");
    }
  }

  bool String(std::string& out) {
    ++at_;
    for (;;) {
      const size_t from = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' && static_cast<unsigned char>(text_[at_]) >= 0x20)
        ++at_;
      out.append(text_.substr(from, at_ - from));
      if (at_ == text_.size()) return Expected("'\"'");
      if (text_[at_] == '"') return ++at_, true;
      if (text_[at_] != '\\') return Expected("no control character in a string");
      ++at_;
      if (!Escape(out)) return false;
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string expected_;
};

// The next code point of valid UTF-8; advances `at`.
uint32_t NextCodePoint(std::string_view s, size_t& at) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const uint32_t first = byte(at);
  const int more = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  uint32_t c = more == 0 ? first : first & (0x3F >> more);
  for (int i = 1; i <= more; ++i) c = (c << 6) | (byte(at + static_cast<size_t>(i)) & 0x3F);
  at += static_cast<size_t>(more) + 1;
  return c;
}

void AppendUnicodeEscape(uint32_t unit, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(unit >> shift) & 15];
}

}  // namespace

const JsonValue* JsonValue::Find(std::string_view key) const {
  for (size_t i = keys.size(); i-- > 0;)
    if (keys[i] == key) return &values[i];
  return nullptr;
}

std::optional<int64_t> JsonValue::AsInt() const {
  if (kind != Kind::kNumber) return std::nullopt;
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return n;
}

std::optional<double> JsonValue::AsDouble() const { return kind == Kind::kNumber ? ParseDouble(text) : std::nullopt; }

std::optional<bool> JsonValue::AsBool() const {
  if (kind != Kind::kBool) return std::nullopt;
  return text == "true";
}

Result<JsonValue> ParseJson(std::string_view text) { return Parser(text).Document(); }

std::optional<PythonNumber> AsPythonNumber(const JsonValue& value) {
  if (const auto n = value.AsInt()) return PythonNumber{static_cast<double>(*n), true};
  if (const auto x = value.AsDouble()) return PythonNumber{*x, false};
  return std::nullopt;
}

std::optional<double> ParseDouble(std::string_view text) {
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(x)) return std::nullopt;
  return x;
}

void AppendPythonFloat(double x, std::string& out) {
  char buffer[40] = {};  // zeros: atoi stops at one
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.data() + e + 1);
  if (exponent < -4 || exponent >= 16) {
    out += text;  // to_chars writes the exponent as Python does: a sign and at least two digits
    return;
  }
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::fixed);
  const std::string_view plain(buffer, static_cast<size_t>(fixed.ptr - buffer));
  out += plain;
  if (plain.find('.') == std::string_view::npos) out += ".0";
}

void AppendPythonNumber(PythonNumber x, std::string& out) {
  if (x.is_int) {
    out += std::to_string(static_cast<int64_t>(x.value));
  } else {
    AppendPythonFloat(x.value, out);
  }
}

void AppendPythonString(std::string_view utf8, std::string& out) {
  out += '"';
  for (size_t at = 0; at < utf8.size();) {
    const uint32_t c = NextCodePoint(utf8, at);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (c >= 0x20 && c < 0x7F) {
          out += static_cast<char>(c);
        } else if (c < 0x10000) {
          AppendUnicodeEscape(c, out);
        } else {
          AppendUnicodeEscape(0xD800 + ((c - 0x10000) >> 10), out);
          AppendUnicodeEscape(0xDC00 + ((c - 0x10000) & 0x3FF), out);
        }
    }
  }
  out += '"';
}

}  // namespace foretoken
