#include "integration/log/log.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>
#include <vector>

namespace foretoken {
namespace {

struct Captured {
  std::vector<std::string> lines;
  double now = 100;
  Log::Options Options(LogFormat format) {
    Log::Options o;
    o.program = "foretoken test";
    o.format = format;
    o.sink = [this](const std::string& line) { lines.push_back(line); };
    o.clock = [this] { return now; };
    return o;
  }
};

TEST(LogTest, AJsonLineIsOneObjectWhateverItHolds) {
  Captured c;
  Log log(c.Options(LogFormat::kJson));
  log.Write(LogLevel::kWarning, "engine_out", "he said \"no\"\nand left",
            {{"engine", "a\\b"}, {"ttft_s", 0.5}, {"request", int64_t{7}}});
  ASSERT_EQ(c.lines.size(), 1u);
  EXPECT_EQ(c.lines[0].find('\n'), c.lines[0].size() - 1);
  const auto o = boost::json::parse(c.lines[0]).as_object();
  EXPECT_EQ(o.at("kind"), "engine_out");
  EXPECT_EQ(o.at("level"), "warning");
  EXPECT_EQ(o.at("message"), "he said \"no\"\nand left");
  EXPECT_EQ(o.at("engine"), "a\\b");
  EXPECT_EQ(o.at("ttft_s").as_double(), 0.5);
  EXPECT_EQ(o.at("request").as_int64(), 7);
}

TEST(LogTest, ATextLineIsOneLineAndRepeatsNothing) {
  Captured c;
  Log log(c.Options(LogFormat::kText));
  log.Write(LogLevel::kInfo, "engine_out", "http://e:1 is\nout", {{"engine", "http://e:1"}, {"age_s", 2.5}});
  EXPECT_EQ(c.lines, std::vector<std::string>{"foretoken test: http://e:1 is out age_s=2.5\n"});
}

TEST(LogTest, AFloodOfOneKindIsCutAndCountedAndHidesNoOther) {
  Captured c;
  Log log(c.Options(LogFormat::kText));
  for (int k = 0; k < 1000; ++k) log.Write(LogLevel::kInfo, "peer", "hostile");
  EXPECT_EQ(c.lines.size(), 20u);
  EXPECT_EQ(log.suppressed(), 980u);
  log.Write(LogLevel::kInfo, "engine_out", "out");
  EXPECT_EQ(c.lines.back(), "foretoken test: out\n");
  c.now += 1;
  log.Write(LogLevel::kInfo, "peer", "again");
  EXPECT_EQ(c.lines.back(), "foretoken test: again (and 980 more of this kind left out)\n");
}

TEST(LogTest, ExamplesComeOnceASecond) {
  Captured c;
  Log log(c.Options(LogFormat::kText));
  for (int k = 0; k < 30; ++k) {
    log.Example(LogLevel::kInfo, "slow_request", "slow");
    c.now += 0.1;
  }
  EXPECT_GE(c.lines.size(), 3u);
  EXPECT_LE(c.lines.size(), 4u);
}

TEST(LogTest, WhatIsBelowTheLevelIsNotTold) {
  Captured c;
  Log::Options o = c.Options(LogFormat::kText);
  o.level = LogLevel::kError;
  Log log(o);
  log.Write(LogLevel::kWarning, "a", "a");
  log.Write(LogLevel::kError, "b", "b");
  EXPECT_EQ(c.lines, std::vector<std::string>{"foretoken test: b\n"});
}

}  // namespace
}  // namespace foretoken
