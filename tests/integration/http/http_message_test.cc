// Heads and bodies off the wire, in one piece and byte by byte.
#include "integration/http/http_message.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace foretoken {
namespace {

// The body that `wire` carries when it comes in pieces of `step` bytes; ends with "!" if it is not complete.
std::string Decode(std::string_view head_text, std::string_view wire, size_t step, bool of_request = false) {
  const auto head = ParseHead(head_text);
  EXPECT_TRUE(head.ok() && head->has_value());
  BodyDecoder decoder = BodyDecoder::Of(**head, of_request);
  std::string out;
  for (size_t at = 0; at < wire.size() && !decoder.done() && !decoder.malformed();) {
    const std::string_view piece = wire.substr(at, step);
    const size_t used = decoder.Feed(piece, out);
    at += used;
    if (used < piece.size()) break;
  }
  return decoder.malformed() ? "malformed" : out + (decoder.done() ? "" : "!");
}

TEST(HttpHeadTest, IsKnownOnlyWhenItsLastLineHasCome) {
  const std::string text = "GET /a?b=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nConnection: Close\r\n\r\nrest";
  for (size_t n = 0; n < text.size() - 4; ++n) {
    const auto head = ParseHead(std::string_view(text).substr(0, n));
    ASSERT_TRUE(head.ok());
    EXPECT_FALSE(head->has_value()) << n;
  }
  const auto head = ParseHead(text);
  ASSERT_TRUE(head.ok() && head->has_value());
  EXPECT_EQ((*head)->size, text.size() - 4);
  EXPECT_EQ((*head)->method(), "GET");
  EXPECT_EQ((*head)->target(), "/a?b=1");
  EXPECT_EQ((*head)->Field("host"), "x");
  EXPECT_EQ((*head)->content_length, 7u);
  EXPECT_TRUE((*head)->close);
  EXPECT_EQ((*head)->status(), 0);
}

TEST(HttpHeadTest, AnAnswerHasAStatusAndALengthThatIsNoNumberIsAnError) {
  EXPECT_EQ((*ParseHead("HTTP/1.1 503 Service Unavailable\r\n\r\n"))->status(), 503);
  EXPECT_FALSE(ParseHead("HTTP/1.1 200 OK\r\nContent-Length: 7x\r\n\r\n").ok());
}

TEST(BodyDecoderTest, PiecesOfAnySizeGiveTheSameBody) {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (size_t step : {1, 2, 3, 7, 100}) {
    EXPECT_EQ(Decode("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "abcdefg", step), "abcde");
    EXPECT_EQ(Decode(chunked, "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nmore", step), "abc0123456789");
    EXPECT_EQ(Decode(chunked, "3\r\nabc\r\n", step), "abc!");
    EXPECT_EQ(Decode(chunked, "3\r\nabcX\r\n", step), "malformed");
    EXPECT_EQ(Decode(chunked, "zz\r\n", step), "malformed");
    EXPECT_EQ(Decode("HTTP/1.0 200 OK\r\n\r\n", "until the end", step), "until the end!");
  }
}

TEST(BodyDecoderTest, ARequestWithoutALengthHasNoBody) {
  EXPECT_EQ(Decode("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /next", 4, true), "");
}

}  // namespace
}  // namespace foretoken
