// JsonCursor: reads JSON text in one pass, value by value, without building a tree: a trace has millions of small rows of which
// a few fields count. The first thing that is wrong ends the reading; it remembers where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace foretoken::traces {

class JsonCursor {
 public:
  explicit JsonCursor(std::string_view text) : text_(text) {}

  // An object: BeginObject(), then NextKey() until false, reading or skipping a value after each true.
  bool BeginObject() { return Begin('{', "an object is needed"); }
  bool NextKey(std::string_view& key);
  // An array: BeginArray(), then NextElement() until false, reading or skipping an element after each true.
  bool BeginArray() { return Begin('[', "an array is needed"); }
  bool NextElement();

  // A number times 10^scale, at least `least`; a whole one if scale is 0.
  bool Number(int scale, int64_t least, int64_t& out);
  bool Text(std::string& out);  // escapes decoded
  // A number or a text, as it is written.
  bool NumberOrText(std::string& out);
  bool Null();     // takes a null if there is one
  bool AtArray();  // whether the next value is an array; takes nothing
  bool Skip();     // any value; nested at most 100 deep
  // Nothing may follow but white space.
  bool End();

  // Makes the last value read the one that is complained about.
  bool Fail(std::string_view rule);
  bool failed() const { return failed_; }
  size_t error_at() const { return error_at_; }  // index into the text
  std::string_view error_value() const;          // what is found there
  const std::string& error_rule() const { return rule_; }

 private:
  bool Begin(char open, std::string_view rule);
  bool More(char close, bool& more);
  void SkipSpace();
  bool RawText(std::string_view& raw);
  std::string_view RawNumber();
  bool FailAt(size_t at, std::string_view rule);
  bool Literal();
  bool Escape(std::string_view raw, size_t& i, std::string& out);

  std::string_view text_;
  size_t at_ = 0;
  size_t value_at_ = 0;
  bool first_ = false;  // no element of the innermost open container was read yet
  bool failed_ = false;
  size_t error_at_ = 0;
  std::string rule_;
};

}  // namespace foretoken::traces
