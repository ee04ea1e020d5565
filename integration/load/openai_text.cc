#include "integration/load/openai_text.h"

#include <algorithm>
#include <boost/json.hpp>

namespace foretoken {
namespace {

boost::json::string_view View(std::string_view s) { return {s.data(), s.size()}; }

std::string Usage(int64_t prompt_tokens, int64_t output_tokens) {
  return "\"usage\":{\"prompt_tokens\":" + std::to_string(prompt_tokens) +
         ",\"completion_tokens\":" + std::to_string(output_tokens) +
         ",\"total_tokens\":" + std::to_string(prompt_tokens + output_tokens) + "}";
}

// A string, or the texts of a list of parts.
void AppendText(const boost::json::value& content, std::string& out) {
  if (content.is_string()) {
    out.append(content.as_string().data(), content.as_string().size());
  } else if (content.is_array()) {
    for (const boost::json::value& part : content.as_array())
      if (part.is_object() && part.as_object().contains("text")) AppendText(part.as_object().at("text"), out);
  }
}

void ReadPrompt(const boost::json::object& o, EngineCall& call) {
  if (const auto* messages = o.if_contains("messages"); messages != nullptr && messages->is_array()) {
    for (const boost::json::value& m : messages->as_array()) {
      if (!m.is_object()) continue;
      if (const auto* role = m.as_object().if_contains("role")) AppendText(*role, call.text);
      if (const auto* content = m.as_object().if_contains("content")) AppendText(*content, call.text);
    }
  }
  const auto* prompt = o.if_contains("prompt");
  if (prompt == nullptr) return;
  AppendText(*prompt, call.text);
  if (!prompt->is_array()) return;
  for (const boost::json::value& token : prompt->as_array()) {
    if (token.is_int64()) call.token_ids.push_back(static_cast<uint32_t>(token.as_int64()));
    if (token.is_string()) AppendText(token, call.text);
  }
}

}  // namespace

Result<EngineCall> ParseEngineCall(std::string_view body, bool chat, int64_t default_tokens, bool with_prompt) {
  boost::json::error_code failed;
  boost::json::monotonic_resource memory;
  const boost::json::value parsed = boost::json::parse(View(body), failed, &memory);
  if (failed) return Error{"not JSON: " + failed.message()};
  const boost::json::object* o = parsed.if_object();
  if (o == nullptr) return Error{"the body must be a JSON object"};
  EngineCall call;
  call.chat = chat;
  call.tokens = default_tokens;
  if (const auto* model = o->if_contains("model"); model != nullptr && model->is_string())
    call.model = model->as_string().c_str();
  if (const auto* stream = o->if_contains("stream"); stream != nullptr && stream->is_bool()) call.stream = stream->as_bool();
  for (const char* key : {"max_tokens", "max_completion_tokens"})
    if (const auto* n = o->if_contains(key); n != nullptr && n->is_int64()) call.tokens = std::max<int64_t>(1, n->as_int64());
  if (const auto* n = o->if_contains("priority"); n != nullptr && n->is_int64())
    call.priority = static_cast<int32_t>(n->as_int64());
  if (const auto* options = o->if_contains("stream_options"); options != nullptr && options->is_object())
    if (const auto* usage = options->as_object().if_contains("include_usage"); usage != nullptr && usage->is_bool())
      call.include_usage = usage->as_bool();
  if (with_prompt) ReadPrompt(*o, call);
  return call;
}

std::string ErrorBody(std::string_view type, std::string_view message, int code) {
  return boost::json::serialize(
      boost::json::object{{"error", {{"message", View(message)}, {"type", View(type)}, {"param", nullptr}, {"code", code}}}});
}

std::string ModelsBody(const std::vector<std::string>& models, int64_t max_model_len) {
  boost::json::array data;
  for (const std::string& m : models)
    data.push_back({{"id", m},
                    {"object", "model"},
                    {"created", 1'700'000'000},
                    {"owned_by", "vllm"},
                    {"root", m},
                    {"parent", nullptr},
                    {"max_model_len", max_model_len}});
  return boost::json::serialize(boost::json::object{{"object", "list"}, {"data", data}});
}

std::string VllmGauge(std::string_view name, std::string_view model, double value) {
  std::string out = "# TYPE vllm:";
  out.append(name).append(" gauge\nvllm:").append(name).append("{engine=\"0\",model_name=\"").append(model);
  return out + "\"} " + std::to_string(value) + "\n";
}

std::string AnswerText::Opening(std::string_view object) const {
  std::string out = "{\"id\":\"" + id_ + "\",\"object\":\"";
  return out.append(object).append("\",\"created\":1700000000,\"model\":\"").append(model_).append("\",");
}

std::string AnswerText::Chunk(std::string_view text, std::string_view finish) const {
  std::string out = "data: " + Opening(chat_ ? "chat.completion.chunk" : "text_completion");
  if (!chat_) {
    out.append(R"("choices":[{"index":0,"text":")").append(text).append("\"");
  } else if (text.empty()) {
    out.append(R"("choices":[{"index":0,"delta":{})");
  } else {
    out.append(R"("choices":[{"index":0,"delta":{"role":"assistant","content":")").append(text).append("\"}");
  }
  return out.append(R"(,"logprobs":null,"finish_reason":)").append(finish).append("}]}\n\n");
}

std::string AnswerText::UsageChunk(int64_t prompt_tokens, int64_t output_tokens) const {
  return "data: " + Opening(chat_ ? "chat.completion.chunk" : "text_completion") + "\"choices\":[]," +
         Usage(prompt_tokens, output_tokens) + "}\n\n";
}

std::string AnswerText::Whole(std::string_view text, std::string_view finish, int64_t prompt_tokens,
                              int64_t output_tokens) const {
  std::string out = Opening(chat_ ? "chat.completion" : "text_completion");
  out += chat_ ? R"("choices":[{"index":0,"message":{"role":"assistant","content":")" : R"("choices":[{"index":0,"text":")";
  out.append(text).append(chat_ ? "\"}" : "\"").append(R"(,"logprobs":null,"finish_reason":)").append(finish).append("}],");
  return out + Usage(prompt_tokens, output_tokens) + "}";
}

}  // namespace foretoken
