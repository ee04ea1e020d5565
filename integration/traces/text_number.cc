#include "integration/traces/text_number.h"

#include <limits>

namespace foretoken::traces {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Digits of a decimal as one number and the power of ten of its last digit.
struct Decimal {
  bool negative = false;
  uint64_t digits = 0;  // of the first 19 significant ones
  int64_t exponent = 0;
};

// The exponent after 'e'; clamped, since 1e999999999999 is too large or 0 either way.
bool ReadExponent(std::string_view text, size_t i, int64_t& exponent) {
  bool negative = false;
  if (i < text.size() && (text[i] == '+' || text[i] == '-')) negative = text[i++] == '-';
  if (i == text.size()) return false;
  int64_t value = 0;
  for (; i < text.size(); ++i) {
    if (!IsDigit(text[i])) return false;
    if (value < 100'000) value = value * 10 + (text[i] - '0');
  }
  exponent += negative ? -value : value;
  return true;
}

bool ReadDecimal(std::string_view text, Decimal& out) {
  size_t i = 0;
  if (i < text.size() && (text[i] == '-' || text[i] == '+')) out.negative = text[i++] == '-';
  bool any = false, point = false;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '.' && !point) {
      point = true;
      continue;
    }
    if (!IsDigit(c)) break;
    any = true;
    if (out.digits < 1'000'000'000'000'000'000ull) {
      out.digits = out.digits * 10 + static_cast<uint64_t>(c - '0');
      if (point) --out.exponent;
    } else if (!point) {
      ++out.exponent;  // beyond 19 digits: only the magnitude counts
    }
  }
  if (!any) return false;
  if (i == text.size()) return true;
  return (text[i] == 'e' || text[i] == 'E') && ReadExponent(text, i + 1, out.exponent);
}

}  // namespace

NumberError ParseScaled(std::string_view text, int scale, bool whole, int64_t& out) {
  Decimal d;
  if (!ReadDecimal(text, d)) return NumberError::kNotANumber;
  unsigned __int128 value = d.digits;
  const unsigned __int128 limit = static_cast<unsigned __int128>(std::numeric_limits<int64_t>::max());
  int64_t exponent = d.exponent + scale;
  for (; exponent > 0 && value != 0; --exponent) {
    value *= 10;
    if (value > limit) return NumberError::kTooLarge;
  }
  unsigned last = 0;
  for (; exponent < 0 && (value != 0 || last != 0); ++exponent) {
    if (whole && value % 10 != 0) return NumberError::kNotWhole;
    last = static_cast<unsigned>(value % 10);
    value /= 10;
  }
  if (last >= 5) ++value;
  if (value > limit) return NumberError::kTooLarge;
  out = d.negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
  return NumberError::kNone;
}

std::string Printable(std::string_view value) {
  constexpr size_t kLongest = 40;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : value.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return value.size() > kLongest ? out + "..." : out;
}

Error TraceError(std::string_view file, size_t line, size_t column, std::string_view value, std::string_view rule) {
  return {std::string(file) + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + Printable(value) + ": " +
          std::string(rule)};
}

bool IsUtf8(std::string_view text, size_t& bad) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    bad = i;
    if (first < 0x80) {
      ++i;
      continue;
    }
    const size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4 || text.size() - i <= more) return false;
    uint32_t point = first & (0x3Fu >> more);
    for (size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      point = point << 6 | (next & 0x3F);
    }
    constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    if (point < kLeast[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return false;
    i += more + 1;
  }
  return true;
}

}  // namespace foretoken::traces
