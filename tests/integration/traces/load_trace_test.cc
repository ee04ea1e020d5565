// Readers of workloads: what they make of good files, and what they say of bad ones.
#include "integration/traces/load_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

#include "integration/traces/text_number.h"
#include "runtime/base/prng.h"
#include "runtime/workload/synth_profile.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

std::string Write(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/trace_" + ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

Trace Load(const std::string& text, const LoadTraceOptions& options = {}) {
  Result<Trace> loaded = LoadTrace(Write(text), options);
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  return loaded.ok() ? std::move(loaded).value() : Trace();
}

// The complaint about `text`, without the file's folder.
std::string Complaint(const std::string& text, const LoadTraceOptions& options = {}) {
  const Result<Trace> loaded = LoadTrace(Write(text), options);
  if (loaded.ok()) return "";
  const std::string& message = loaded.error().message;
  const size_t end_of_name = message.find("/trace_");
  return end_of_name == std::string::npos ? message : message.substr(message.find(':', end_of_name));
}

constexpr char kAzure[] =
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:50.9951690,396,109\r\n"
    "2023-11-17 00:00:00.0000000,879,55";

TEST(LoadTraceTest, AzureWithCarriageReturnsAndNoFinalNewline) {
  const Trace t = Load(kAzure);
  ASSERT_EQ(t.requests.size(), 3u);
  EXPECT_EQ(t.requests[0].meta.arrival.nanos(), 0);
  EXPECT_EQ(t.requests[1].meta.arrival.nanos(), 4'314'579'000);
  EXPECT_EQ(t.requests[2].meta.arrival.nanos(), (5 * 3600 + 44 * 60 + 13) * 1'000'000'000ll + 319'410'000);
  EXPECT_EQ(t.requests[2].meta.prompt_tokens.value(), 879);
  EXPECT_EQ(t.requests[2].truth.output_tokens.value(), 55);
  EXPECT_EQ(t.requests[2].meta.id.value(), 3u);
  EXPECT_FALSE(t.requests[2].meta.max_tokens);
}

TEST(LoadTraceTest, RateScaleDividesTimesAndLimitTakesTheFirst) {
  LoadTraceOptions o;
  o.rate_scale = 4;
  o.limit = 2;
  const Trace t = Load(kAzure, o);
  ASSERT_EQ(t.requests.size(), 2u);
  EXPECT_EQ(t.requests[1].meta.arrival.nanos(), 1'078'644'750);
}

TEST(LoadTraceTest, MooncakeHashesAreSharedSegmentsOf512) {
  const Trace t = Load(
      "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}\n"
      "{\"timestamp\": 3001, \"input_length\": 600, \"output_length\": 7, \"hash_ids\": [0, 3]}\n");
  ASSERT_EQ(t.requests.size(), 2u);
  EXPECT_EQ(t.requests[1].meta.arrival.nanos(), 3'001'000'000);
  const auto& a = t.requests[0].meta.segments;
  const auto& b = t.requests[1].meta.segments;
  ASSERT_EQ(a.size(), 3u);
  ASSERT_EQ(b.size(), 2u);
  EXPECT_EQ(a[0], b[0]);
  EXPECT_NE(a[1].content, b[1].content);
  EXPECT_EQ(a[2].length.value(), 76);
  EXPECT_EQ(b[1].length.value(), 88);
  for (const PromptSegment& s : a) EXPECT_NE(s.content >> 63, 0u);  // no request's own content
}

TEST(LoadTraceTest, BurstGptColumnsByNameAndFailuresSkipped) {
  const Result<LoadedTrace> t =
      LoadTraceFile(Write("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                          "5,ChatGPT,472,18,490,Conversation log\n"
                          "45.5,ChatGPT,1087,0,1087,Conversation log\n"
                          "118,GPT-4,417,276,693,API log\n"));
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->format, TraceFormat::kBurstGpt);
  EXPECT_EQ(t->skipped, 1u);
  ASSERT_EQ(t->trace.requests.size(), 2u);
  EXPECT_EQ(t->trace.requests[1].meta.arrival.nanos(), 113'000'000'000);
}

TEST(LoadTraceTest, ShareGptTakesTheFirstExchangeAndDrawsArrivals) {
  const std::string text =
      "[{\"id\": \"a\", \"conversations\": [{\"from\": \"human\", \"value\": \"12345678\"}, {\"from\": \"gpt\", \"value\": "
      "\"123\\u00e9\"},"
      " {\"from\": \"human\", \"value\": \"x\"}]},\n {\"id\": \"b\", \"conversations\": []},"
      " {\"id\": \"c\", \"conversations\": [{\"from\": \"human\", \"value\": \"1\"}, {\"from\": \"gpt\", \"value\": \"1\"}]}]";
  const Result<LoadedTrace> t = LoadTraceFile(Write(text));
  ASSERT_TRUE(t.ok()) << t.error().message;
  EXPECT_EQ(t->format, TraceFormat::kShareGpt);
  EXPECT_EQ(t->skipped, 1u);
  ASSERT_EQ(t->trace.requests.size(), 2u);
  EXPECT_EQ(t->trace.requests[0].meta.prompt_tokens.value(), 2);
  EXPECT_EQ(t->trace.requests[0].truth.output_tokens.value(), 2);  // 5 bytes
  EXPECT_GT(t->trace.requests[1].meta.arrival.nanos(), 0);
}

TEST(LoadTraceTest, VllmBenchResultInOrderOfStart) {
  const Result<LoadedTrace> t =
      LoadTraceFile(Write("{\"date\": \"x\", \"num_prompts\": 3, \"request_rate\": Infinity, \"input_lens\": [10, 20, 30], "
                          "\"output_lens\": [1, 2, 0],"
                          " \"start_times\": [100.5, 100.25, 101.0], \"errors\": [\"\", \"\", \"boom\"]}"));
  ASSERT_TRUE(t.ok()) << t.error().message;
  EXPECT_EQ(t->format, TraceFormat::kVllmBench);
  EXPECT_EQ(t->skipped, 1u);
  ASSERT_EQ(t->trace.requests.size(), 2u);
  EXPECT_EQ(t->trace.requests[0].meta.prompt_tokens.value(), 20);
  EXPECT_EQ(t->trace.requests[1].meta.arrival.nanos(), 250'000'000);
}

TEST(LoadTraceTest, VllmStepLogTakesAddsAndEnds) {
  const Result<LoadedTrace> t =
      LoadTraceFile(Write("{\"type\":\"hello\",\"instance\":\"i0\"}\n"
                          "{\"type\":\"add\",\"t\":1000,\"id\":\"a\",\"prompt\":142,\"max_tokens\":24,\"prio\":2}\n"
                          "{\"type\":\"add\",\"t\":3000,\"id\":\"b\",\"prompt\":9,\"max_tokens\":5,\"prio\":0}\n"
                          "{\"type\":\"step\",\"seq\":0,\"items\":[[\"a\",142,0,1]],\"ended\":[[\"a\",\"FINISHED\",19,0]]}\n"
                          "{\"type\":\"free\",\"t\":4000,\"ended\":[\"b\"]}\n"));
  ASSERT_TRUE(t.ok()) << t.error().message;
  EXPECT_EQ(t->skipped, 1u);
  ASSERT_EQ(t->trace.requests.size(), 1u);
  EXPECT_EQ(t->trace.requests[0].truth.output_tokens.value(), 19);
  EXPECT_EQ(t->trace.requests[0].meta.max_tokens->value(), 24);
  EXPECT_EQ(t->trace.requests[0].meta.priority, 2);
}

TEST(LoadTraceTest, NamedSegmentsMeanRequestsAlsoLaterOnes) {
  const Trace t = Load(
      "{\"id\": \"x\", \"arrival\": 0, \"prompt_len\": 9, \"output_len\": 4, \"segments\": [[\"sys\", 5], [\"out:y\", 4]]}\n"
      "{\"id\": \"y\", \"arrival\": 1e-6, \"prompt_len\": 9, \"output_len\": 4, \"segments\": [[\"sys\", 5], [\"p:x\", 4]]}\n");
  ASSERT_EQ(t.requests.size(), 2u);
  EXPECT_EQ(t.requests[0].meta.segments[0], t.requests[1].meta.segments[0]);
  EXPECT_EQ(t.requests[0].meta.segments[1].content, OutputContent(RequestId(2)));
  EXPECT_EQ(t.requests[1].meta.segments[1].content, PrivateContent(RequestId(1)));
  EXPECT_EQ(t.requests[1].meta.arrival.nanos(), 1000);
}

TEST(LoadTraceTest, WhatIsWrittenIsReadBackBitByBit) {
  for (const uint64_t seed : testing::Seeds(10)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    SynthProfile p;
    p.requests = 200;
    p.sharing.share = 0.5;
    p.sessions.share = 0.5;
    Trace trace = Synthesize(p, prng);
    std::string text;
    for (TraceRequest& r : trace.requests) {
      if (prng.Chance(0.3)) r.meta.max_tokens = TokenCount(prng.Between(1, 999));
      if (prng.Chance(0.3)) r.meta.output_hint = TokenCount(prng.Between(1, 999));
      if (prng.Chance(0.3)) r.meta.priority = static_cast<int32_t>(prng.Between(-5, 5));
      if (prng.Chance(0.3))
        r.meta.slo = Slo{Duration::Nanos(prng.Between(0, 1'000'000'000'000)), Duration::Micros(prng.Between(0, 99))};
      if (prng.Chance(0.3)) r.meta.length_class = static_cast<uint32_t>(prng.Below(9));
      if (prng.Chance(0.3)) r.meta.model = ModelId(static_cast<uint32_t>(prng.Below(9)));
      text += TraceRow(r);
    }
    const Trace read = Load(text);
    ASSERT_EQ(read.requests.size(), trace.requests.size());
    for (size_t i = 0; i < trace.requests.size(); ++i) {
      ASSERT_EQ(read.requests[i].meta, trace.requests[i].meta) << TraceRow(trace.requests[i]);
      ASSERT_EQ(read.requests[i].truth, trace.requests[i].truth);
    }
  }
}

TEST(LoadTraceTest, BadCsvIsNamedByPlaceValueAndRule) {
  const std::string head = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n";
  EXPECT_EQ(Complaint(head + "2023-11-16 18:15:50.9,396"), ":3:26: 2023-11-16 18:15:50.9,396: has 2 cells; the header names 3");
  EXPECT_EQ(Complaint(head + "2023-11-16 18:15:50.9,-3,4\n"),
            ":3:23: -3: must be a whole number of tokens from 0 to 2147483647");
  EXPECT_EQ(Complaint(head + "2023-11-16 18:15:50.9,3.5,4\n"),
            ":3:23: 3.5: must be a whole number of tokens from 0 to 2147483647");
  EXPECT_EQ(Complaint(head + "2023-02-30 18:15:50.9,3,4\n"),
            ":3:1: 2023-02-30 18:15:50.9: must be a time such as 2023-11-16 18:15:46.6805900");
  EXPECT_NE(Complaint(head + "2023-11-16 18:15:46,3,4\n").find(":3:1: "), std::string::npos);
  EXPECT_NE(Complaint(head + "2023-11-16 18:15:46,3,4\n").find("arrives before the request above it"), std::string::npos);
  EXPECT_NE(Complaint(head + "\xff\xfe,3,4\n").find(":3:1: \\xff\\xfe: must be a time"), std::string::npos);
}

TEST(LoadTraceTest, BadJsonIsNamedByPlaceValueAndRule) {
  const std::string row = "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 5, \"hash_ids\": [0]}\n";
  EXPECT_EQ(Complaint(row + "{\"timestamp\": 1, \"input_length\": -5}\n"), ":2:34: -5: must be at least 1");
  EXPECT_EQ(Complaint(row + "{\"timestamp\": 1, \"input_length\": 5.5}\n"), ":2:34: 5.5: must be a whole number");
  EXPECT_EQ(Complaint(row + "{\"timestamp\": 1, \"input_length\": 5}\n"),
            ":2:1: output_length: this key is needed in every row");
  EXPECT_EQ(Complaint(row + "{\"timestamp\": 1, \"input_len"), ":2:18: \"input_len: a key in double quotes is needed here");
  EXPECT_NE(Complaint(row + "{\"timestamp\": 1, \"x\": \"\xc3\x28\"}\n").find(":2:24: \\xc3("), std::string::npos);
  EXPECT_NE(Complaint(row + "nonsense\n").find(":2:1: nonsense: an object is needed"), std::string::npos);
  EXPECT_NE(Complaint(row + "{\"x\": " + std::string(5000, '[') + "}\n").find("nested more than 100 deep"), std::string::npos);
  EXPECT_NE(Complaint(row + "{\"timestamp\": 1e30, \"input_length\": 5}\n").find("is too large"), std::string::npos);
  const std::string ours = "{\"id\": \"a\", \"arrival\": 0, \"prompt_len\": 5, \"output_len\": 5}\n";
  EXPECT_NE(Complaint(ours + ours).find(":2:1: a: this id stands in a row above"), std::string::npos);
  EXPECT_NE(Complaint("{\"arrival\": 0, \"prompt_len\": 5, \"output_len\": 5, \"segments\": [[\"a\", 4]]}\n")
                .find("must add up to prompt_len = 5"),
            std::string::npos);
}

TEST(LoadTraceTest, WhatIsNoTraceIsRefused) {
  EXPECT_NE(Complaint("").find("is empty"), std::string::npos);
  EXPECT_NE(Complaint("hello world\n").find(":1:1: hello world: no known trace begins like this"), std::string::npos);
  EXPECT_NE(Complaint("TIMESTAMP,ContextTokens,GeneratedTokens\n").find("holds no request"), std::string::npos);
  EXPECT_NE(
      Complaint(std::string("TIMESTAMP,ContextTokens,GeneratedTokens\n") + std::string(10 << 20, '7')).find("at most 1 MiB"),
      std::string::npos);
  EXPECT_NE(LoadTrace(::testing::TempDir()).error().message.find("is a directory"), std::string::npos);
  EXPECT_NE(LoadTrace(::testing::TempDir() + "/absent").error().message.find("no such file"), std::string::npos);
  LoadTraceOptions o;
  o.rate_scale = 0;
  EXPECT_NE(Complaint(kAzure, o).find("must be above 0"), std::string::npos);
}

// Whatever a file was damaged by, reading ends in a trace or in one message.
TEST(LoadTraceTest, DamagedFilesNeverCrash) {
  const std::string good[] = {
      kAzure,
      "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}\n",
      "{\"id\": \"x\", \"arrival\": 0, \"prompt_len\": 9, \"output_len\": 4, \"segments\": [[\"sys\", 5], [\"out:y\", 4]]}\n",
      "[{\"id\": \"a\", \"conversations\": [{\"from\": \"human\", \"value\": \"a\\u00e9\"}, {\"from\": \"gpt\", \"value\": "
      "\"1\"}]}]",
      "{\"num_prompts\": 1, \"input_lens\": [10], \"output_lens\": [1], \"start_times\": [1.5]}",
      "{\"type\":\"add\",\"t\":1,\"id\":\"a\",\"prompt\":1,\"max_tokens\":2,\"prio\":2}\n{\"type\":\"step\",\"ended\":[[\"a\","
      "\"F\",19,0]]}\n"};
  size_t refused = 0;
  for (const uint64_t seed : testing::Seeds(400)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    std::string text = good[prng.Below(std::size(good))];
    for (int64_t n = prng.Between(1, 4); n > 0 && !text.empty(); --n) {
      const size_t at = prng.Below(text.size());
      switch (prng.Below(3)) {
        case 0: text[at] = static_cast<char>(prng.Below(256)); break;
        case 1: text.erase(at, prng.Below(8)); break;
        default: text.insert(at, text.substr(prng.Below(text.size()), prng.Below(12))); break;
      }
    }
    const Result<Trace> loaded = LoadTrace(Write(text));
    if (loaded.ok()) continue;
    ++refused;
    EXPECT_FALSE(loaded.error().message.empty());
    EXPECT_EQ(loaded.error().message.find('\n'), std::string::npos);
  }
  EXPECT_GT(refused, 0u);
}

TEST(ParseScaledTest, ReadsDecimalsExactly) {
  const auto read = [](std::string_view text, int scale, bool whole = false) {
    int64_t out = -1;
    return traces::ParseScaled(text, scale, whole, out) == traces::NumberError::kNone ? std::optional<int64_t>(out)
                                                                                      : std::nullopt;
  };
  EXPECT_EQ(read("0.031614075", 9), 31'614'075);
  EXPECT_EQ(read("1795383321.4068499", 9), 1'795'383'321'406'849'900);
  EXPECT_EQ(read("1.5e-9", 9), 2);
  EXPECT_EQ(read("1.4e-9", 9), 1);
  EXPECT_EQ(read("-2.5e-9", 9), -3);
  EXPECT_EQ(read("5.0", 0, true), 5);
  EXPECT_EQ(read("9223372036854775807", 0), INT64_MAX);
  EXPECT_EQ(read("9223372036854775808", 0), std::nullopt);
  EXPECT_EQ(read("1e99999999999", 0), std::nullopt);
  EXPECT_EQ(read("0e99999999999", 0), 0);
  EXPECT_EQ(read("1e-99999999999", 9), 0);
  EXPECT_EQ(read("5.5", 0, true), std::nullopt);
  for (const char* bad : {"", "-", ".", "1.2.3", "e5", "1e", "0x5", "5 ", "nan"}) EXPECT_EQ(read(bad, 0), std::nullopt) << bad;
}

}  // namespace
}  // namespace foretoken
