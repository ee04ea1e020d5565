#include "integration/gateway/openai_body.h"

#include <boost/json/basic_parser_impl.hpp>
#include <limits>

namespace foretoken {
namespace {

namespace json = boost::json;

constexpr size_t kMostDepth = 128;
constexpr size_t kMostModelName = 512;

// Which value of the top level is being read.
enum class Field : uint8_t {
  kOther,
  kModel,
  kStream,
  kStreamOptions,
  kMaxTokens,
  kChoices,
  kPriority,
  kPrompt,
  kMessages,
  kTools
};

Field FieldOf(std::string_view key) {
  if (key == "model") return Field::kModel;
  if (key == "stream") return Field::kStream;
  if (key == "stream_options") return Field::kStreamOptions;
  if (key == "max_tokens" || key == "max_completion_tokens") return Field::kMaxTokens;
  if (key == "n") return Field::kChoices;
  if (key == "priority") return Field::kPriority;
  if (key == "prompt") return Field::kPrompt;
  if (key == "messages") return Field::kMessages;
  if (key == "tools") return Field::kTools;
  return Field::kOther;
}

// Receives the parser's events. depth: of the containers open; a value of the top-level object is at depth 1.
class Reader {
 public:
  using Code = json::error_code;
  static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_array_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_key_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_string_size = std::numeric_limits<std::size_t>::max();

  explicit Reader(OpenAiBody& body) : body_(body) {}

  const std::optional<BodyError>& error() const { return error_; }
  bool has_model() const { return has_model_; }
  bool has_prompt() const { return has_prompt_; }
  bool has_messages() const { return has_messages_; }
  bool is_object() const { return is_object_; }
  bool messages_empty() const { return messages_ == 0; }

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code&) {
    if (depth_ == 0) is_object_ = true;
    if (field_ == Field::kMessages && depth_ == 2) ++messages_;
    return Open('{');
  }
  bool on_object_end(std::size_t, Code&) {
    if (field_ == Field::kMessages && depth_ == 3) body_.prompt.EndPart();
    return Shut();
  }
  bool on_array_begin(Code&) {
    if (depth_ == 1 && field_ == Field::kPrompt) prompts_ = 0;
    if (depth_ == 2 && field_ == Field::kPrompt) ++prompts_;
    return Open('[');
  }
  bool on_array_end(std::size_t, Code&) {
    if (depth_ == 3 && field_ == Field::kPrompt) body_.prompt.EndPart();
    if (depth_ == 2 && field_ == Field::kPrompt) body_.prompts = prompts_ == 0 ? 1 : prompts_;
    return Shut();
  }
  bool on_key_part(json::string_view s, std::size_t, Code&) {
    AppendKey(s);
    return true;
  }
  bool on_key(json::string_view s, std::size_t, Code&) {
    AppendKey(s);
    if (depth_ == 1) field_ = FieldOf(key_);
    is_usage_key_ = key_ == "include_usage";
    is_text_key_ = key_ == "content" || key_ == "text" || key_ == "arguments" || key_ == "reasoning_content";
    key_.clear();
    if (depth_ == 1 && field_ == Field::kMessages) has_messages_ = true;
    if (depth_ == 1 && field_ == Field::kPrompt) has_prompt_ = true;
    return true;
  }
  bool on_string_part(json::string_view s, std::size_t, Code&) { return String({s.data(), s.size()}, false); }
  bool on_string(json::string_view s, std::size_t, Code&) { return String({s.data(), s.size()}, true); }
  bool on_number_part(json::string_view, Code&) { return true; }
  bool on_int64(int64_t i, json::string_view, Code&) { return Number(i); }
  bool on_uint64(uint64_t u, json::string_view, Code&) {
    return Number(static_cast<int64_t>(std::min<uint64_t>(u, std::numeric_limits<int64_t>::max())));
  }
  bool on_double(double, json::string_view, Code&) {
    return depth_ != 1 || (field_ != Field::kMaxTokens && field_ != Field::kChoices) ? Scalar("a number")
                                                                                     : Wrong("must be an integer");
  }
  bool on_bool(bool b, Code&) {
    if (depth_ == 1 && field_ == Field::kStream) {
      body_.stream = b;
      return true;
    }
    if (depth_ == 2 && field_ == Field::kStreamOptions && is_usage_key_) body_.include_usage = b;
    return Scalar("a boolean");
  }
  bool on_null(Code&) {
    if (depth_ == 1 && field_ == Field::kModel) return Wrong("must be a string, not null");
    if (depth_ == 1 && field_ == Field::kMessages) has_messages_ = false;
    if (depth_ == 1 && field_ == Field::kPrompt) has_prompt_ = false;
    return true;
  }
  bool on_comment_part(json::string_view, Code&) { return true; }
  bool on_comment(json::string_view, Code&) { return true; }

 private:
  static std::string NameOf(Field f) {
    switch (f) {
      case Field::kModel: return "model";
      case Field::kStream: return "stream";
      case Field::kMaxTokens: return "max_tokens";
      case Field::kChoices: return "n";
      case Field::kPrompt: return "prompt";
      case Field::kMessages: return "messages";
      case Field::kStreamOptions: return "stream_options";
      case Field::kPriority: return "priority";
      case Field::kTools: return "tools";
      case Field::kOther: return "";
    }
    return "";
  }
  bool Wrong(const std::string& rule) {
    if (!error_) error_ = BodyError{"`" + NameOf(field_) + "` " + rule, NameOf(field_)};
    return false;
  }
  // A value of the top level that is of the wrong kind for its field.
  bool Scalar(const char* kind) {
    if (depth_ != 1) return true;
    if (field_ == Field::kModel) return Wrong(std::string("must be a string, not ") + kind);
    if (field_ == Field::kMessages) return Wrong(std::string("must be an array of messages, not ") + kind);
    if (field_ == Field::kPrompt) return Wrong(std::string("must be a string or an array, not ") + kind);
    if (field_ == Field::kStream) return Wrong(std::string("must be a boolean, not ") + kind);
    return true;
  }
  bool Open(char kind) {
    if (depth_ == 1) {
      if (field_ == Field::kModel || field_ == Field::kStream || field_ == Field::kMaxTokens || field_ == Field::kChoices)
        return Wrong("must be a single value");
      if (field_ == Field::kMessages && kind == '{') return Wrong("must be an array of messages, not an object");
    }
    if (depth_ == 2 && field_ == Field::kMessages && kind == '[') return Wrong("must be an array of objects");
    ++depth_;
    return true;
  }
  bool Shut() {
    --depth_;
    return true;
  }
  void AppendKey(json::string_view s) {
    if (key_.size() + s.size() <= 64) key_.append(s.data(), s.size());
  }

  bool String(std::string_view s, bool last) {
    if (depth_ == 1 && field_ == Field::kModel) {
      if (body_.model.size() + s.size() > kMostModelName) return Wrong("is longer than 512 bytes");
      body_.model.append(s);
      has_model_ = true;
      return true;
    }
    const bool prompt = field_ == Field::kPrompt && depth_ >= 1;
    if (prompt || (field_ == Field::kMessages && is_text_key_) || (field_ == Field::kTools && depth_ > 1)) body_.prompt.Add(s);
    if (depth_ == 2 && field_ == Field::kMessages) return Wrong("must be an array of objects");
    if (depth_ == 1 && (field_ == Field::kMaxTokens || field_ == Field::kChoices)) return Wrong("must be an integer");
    if (last && prompt && depth_ == 2) {
      ++prompts_;
      body_.prompt.EndPart();
    }
    return prompt && depth_ == 1 ? true : Scalar("a string");
  }
  bool Number(int64_t i) {
    if (field_ == Field::kPrompt && depth_ >= 2) {
      body_.prompt.AddTokenId(i);
      return true;
    }
    if (depth_ != 1) return true;
    if (field_ == Field::kMaxTokens) {
      if (i < 0) return Wrong("must not be negative");
      body_.max_tokens = i;
    } else if (field_ == Field::kChoices) {
      if (i < 1 || i > 1024) return Wrong("must be between 1 and 1024");
      body_.choices = i;
    } else if (field_ == Field::kPriority) {
      body_.priority = static_cast<int32_t>(std::clamp<int64_t>(i, -32768, 32767));
    } else {
      return Scalar("a number");
    }
    return true;
  }

  OpenAiBody& body_;
  std::optional<BodyError> error_;
  std::string key_;
  Field field_ = Field::kOther;
  int depth_ = 0;
  int64_t prompts_ = 0;
  int64_t messages_ = 0;
  bool is_object_ = false, has_model_ = false, has_prompt_ = false, has_messages_ = false;
  bool is_usage_key_ = false, is_text_key_ = false;
};

std::optional<BodyError> Missing(const char* field) {
  return BodyError{std::string("`") + field + "` is missing: it is required", field};
}

}  // namespace

std::optional<BodyError> ReadOpenAiBody(std::string_view text, Endpoint endpoint, OpenAiBody& body) {
  json::parse_options options;
  options.max_depth = kMostDepth;
  json::basic_parser<Reader> parser(options, body);
  json::error_code ec;
  const size_t used = parser.write_some(false, text.data(), text.size(), ec);
  const Reader& reader = parser.handler();
  if (reader.error()) return reader.error();
  if (ec) return BodyError{"the body is not valid JSON: " + ec.message() + " at byte " + std::to_string(used), ""};
  if (text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    return BodyError{"the body is not valid JSON: extra data at byte " + std::to_string(used), ""};
  if (!reader.is_object()) return BodyError{"the body must be a JSON object", ""};
  if (!reader.has_model()) return Missing("model");
  if (endpoint == Endpoint::kChatCompletions) {
    if (!reader.has_messages()) return Missing("messages");
    if (reader.messages_empty()) return BodyError{"`messages` is empty: at least one message is required", "messages"};
  } else if (!reader.has_prompt()) {
    return Missing("prompt");
  }
  body.prompt.Finish();
  return std::nullopt;
}

}  // namespace foretoken
