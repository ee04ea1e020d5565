// What the gateway reads off the wire, in whatever pieces it comes: chunked bodies, heads, events, request bodies.
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "integration/gateway/chunked_body.h"
#include "integration/gateway/http_head.h"
#include "integration/gateway/openai_answer.h"
#include "integration/gateway/openai_body.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

// The payload of `wire` when it comes in random pieces; "bad" when it is refused; ends with "!" when it is not complete.
std::string Payload(std::string wire, Prng& prng, size_t* rest = nullptr) {
  ChunkedDecoder decoder;
  std::string out;
  for (size_t at = 0; at < wire.size() && !decoder.done();) {
    const size_t n = std::min<size_t>(wire.size() - at, 1 + prng.Below(9));
    std::string piece = wire.substr(at, n);
    const ChunkedDecoder::Step step = decoder.Decode(piece.data(), piece.size());
    if (step.state == ChunkedDecoder::State::kBad) return "bad";
    out += piece.substr(0, step.payload);
    at += step.consumed;
    if (rest != nullptr) *rest = wire.size() - at;
  }
  return decoder.done() ? out : out + "!";
}

TEST(ChunkedDecoderTest, GivesThePayloadHoweverTheBytesAreCut) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    std::string wire, payload;
    for (uint64_t chunks = prng.Below(6); chunks > 0; --chunks) {
      std::string data;
      for (uint64_t n = 1 + prng.Below(40); n > 0; --n) data += static_cast<char>(prng.Below(256));
      char line[32];
      std::snprintf(line, sizeof line, prng.Chance(0.5) ? "%zx" : "%zX", data.size());
      wire += line + std::string(prng.Chance(0.3) ? ";x=\"y\"" : "") + "\r\n" + data + "\r\n";
      payload += data;
    }
    wire += std::string("0\r\n") + (prng.Chance(0.3) ? "Trailer: t\r\n" : "") + "\r\n";
    size_t rest = 0;
    EXPECT_EQ(Payload(wire + "next", prng, &rest), payload) << "seed " << seed;
    EXPECT_GE(rest, 4u) << "seed " << seed;  // what follows the body is not touched
  }
}

TEST(ChunkedDecoderTest, RefusesWhatIsNotChunkedCoding) {
  Prng prng(1);
  for (const char* wire :
       {"xyz\r\n", "5\nhello\r\n0\r\n\r\n", "3\r\nhello\r\n", "\r\n", "-1\r\n", "fffffffffffffffff\r\n", "0\r\n\n"})
    EXPECT_EQ(Payload(wire, prng), "bad") << wire;
  EXPECT_EQ(Payload("3\r\nab", prng), "ab!");
}

HeadResult ParseHead(const std::string& text, RequestHead& head) {
  size_t consumed = 0;
  std::string error;
  return ParseRequestHead(text, HeadOptions{}, head, consumed, error);
}

TEST(RequestHeadTest, PassesEndToEndFieldsOnAsTheyCame) {
  RequestHead head;
  ASSERT_EQ(
      ParseHead(
          "POST /v1/completions?x=1 HTTP/1.1\r\nHost: h\r\nX-Custom:  a b \r\nConnection: keep-alive\r\nTraceparent: 00-1\r\n"
          "X-SLO-TTFT-MS: 250\r\nX-Session-Id: s1\r\nContent-Length: 2\r\n\r\n{}",
          head),
      HeadResult::kDone);
  EXPECT_EQ(head.path(), "/v1/completions");
  EXPECT_EQ(head.forwarded, "X-Custom: a b\r\nTraceparent: 00-1\r\nX-SLO-TTFT-MS: 250\r\nX-Session-Id: s1\r\n");
  EXPECT_EQ(head.content_length, 2u);
  EXPECT_EQ(head.slo_ttft_ms, 250);
  EXPECT_NE(head.session, 0u);
}

TEST(RequestHeadTest, RefusesAmbiguousBodies) {
  for (const char* fields :
       {"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n", "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: gzip\r\n", "Content-Length: -1\r\n", "Content-Length: 2x\r\n"}) {
    RequestHead head;
    EXPECT_EQ(ParseHead(std::string("POST / HTTP/1.1\r\nHost: h\r\n") + fields + "\r\n", head), HeadResult::kBad) << fields;
  }
}

TEST(EventScanTest, CountsOutputAndNotRoles) {
  const EventScan scan = ScanEvents(
      "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"a \\\"content\\\": b\"}}]}\n\n"
      ": comment\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[{\"index\":0}]}}]}\n\n"
      "data: {\"choices\":[{\"text\":\"x\"}],\"usage\":null}\n\n"
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\": "
      "4,\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n\n"
      "data: [DONE]\n\n");
  EXPECT_EQ(scan.events, 5);
  EXPECT_EQ(scan.content_events, 3);
  EXPECT_TRUE(scan.done);
  EXPECT_FALSE(scan.error);
  EXPECT_EQ(scan.usage, (Usage{8, 4, 3}));
}

TEST(EventScanTest, KnowsWhereWholeEventsEnd) {
  EXPECT_EQ(WholeEvents(""), 0u);
  EXPECT_EQ(WholeEvents("data: a\n"), 0u);
  EXPECT_EQ(WholeEvents("data: a\n\nda"), 9u);
  EXPECT_EQ(WholeEvents("data: a\r\n\r\nda"), 11u);
  EXPECT_EQ(WholeEvents("data: a\n\ndata: b\n\n"), 18u);
}

std::string ParamOf(std::string_view json, Endpoint endpoint = Endpoint::kChatCompletions) {
  OpenAiBody body;
  const auto error = ReadOpenAiBody(json, endpoint, body);
  return error ? error->param.empty() ? "body" : error->param : "ok";
}

TEST(OpenAiBodyTest, NamesTheFieldAtFault) {
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":[{"role":"user","content":"hi"}]})"), "ok");
  EXPECT_EQ(ParamOf(R"({})"), "model");
  EXPECT_EQ(ParamOf(R"([])"), "body");
  EXPECT_EQ(ParamOf(R"({"model":"m")"), "body");
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":[{"role":"user"}]} x)"), "body");
  EXPECT_EQ(ParamOf(R"({"model":1,"messages":[{}]})"), "model");
  EXPECT_EQ(ParamOf(R"({"model":"m"})"), "messages");
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":[]})"), "messages");
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":"hi"})"), "messages");
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":["hi"]})"), "messages");
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":[{}],"max_tokens":"5"})"), "max_tokens");
  EXPECT_EQ(ParamOf(R"({"model":"m","messages":[{}],"n":0})"), "n");
  EXPECT_EQ(ParamOf(R"({"model":"m"})", Endpoint::kCompletions), "prompt");
  EXPECT_EQ(ParamOf("{\"model\":\"m\",\"messages\":[{\"content\":\"\xff\xfe\"}]}"), "body");
  EXPECT_EQ(ParamOf(std::string(100000, '[')), "body");
  EXPECT_EQ(ParamOf("{\"model\":\"m\",\"messages\":" + std::string(5000, '[') + std::string(5000, ']') + "}"), "messages");
}

TEST(OpenAiBodyTest, CountsTokenIdsExactlyAndTextByBytes) {
  OpenAiBody ids;
  ASSERT_FALSE(ReadOpenAiBody(R"({"model":"m","prompt":[1,2,3,4],"max_tokens":7,"stream":true})", Endpoint::kCompletions, ids));
  EXPECT_EQ(ids.prompt.token_ids(), 4);
  EXPECT_EQ(ids.prompt.bytes(), 0);
  EXPECT_EQ(ids.max_tokens, 7);
  EXPECT_TRUE(ids.stream);
  OpenAiBody two;
  ASSERT_FALSE(ReadOpenAiBody(R"({"model":"m","prompt":["ab","cde"],"n":2})", Endpoint::kCompletions, two));
  EXPECT_EQ(two.prompt.bytes(), 5);
  EXPECT_EQ(two.prompts, 2);
  EXPECT_EQ(two.choices, 2);
  OpenAiBody chat;
  ASSERT_FALSE(ReadOpenAiBody(
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}],"model":"m","user":"ignored"})",
      Endpoint::kChatCompletions, chat));
  EXPECT_EQ(chat.prompt.bytes(), 5);
}

}  // namespace
}  // namespace foretoken
