#include "configs/step_table.h"

#include <gtest/gtest.h>

#include <string>

#include "configs/tables/embedded_tables.h"
#include "runtime/base/result.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken {
namespace {

constexpr char kHeader[] =
    "prefill_tokens [tokens],prefill_ctx [tokens],decode_seqs [sequences],decode_ctx [tokens/sequence],step_time [us]\n";

std::string ErrorOf(const std::string& text) {
  const Result<StepTimeTable> r = ParseStepTable(text, "t.csv");
  return r.ok() ? "accepted" : r.error().message;
}

std::string Good() {
  return std::string("# gpu: x\n") + kHeader + "0,0,1,100,5\n0,0,8,100,6.5\n64,0,0,0,7\n64,0,1,100,8\n64,0,8,100,9\n";
}

TEST(StepTableFileTest, RoundTripKeepsEveryFigureAndNote) {
  for (const EmbeddedTable& t : EmbeddedTables()) {
    const Result<StepTableGrid> grid = ParseStepTableGrid(t.text, t.name);
    ASSERT_TRUE(grid.ok()) << grid.error().message;
    EXPECT_EQ(FormatStepTable(*grid), t.text) << t.name;
    const Result<StepTimeTable> table = ParseStepTable(t.text, t.name);
    ASSERT_TRUE(table.ok()) << table.error().message;
    for (const char* note : {"source", "license", "copyright", "gpu", "model", "kv_capacity_tokens"}) {
      EXPECT_TRUE(table->Note(note).has_value()) << t.name << " says nothing of its " << note;
    }
    EXPECT_LT(t.text.size(), 25000u) << t.name;
  }
  EXPECT_EQ(EmbeddedTables().size(), 11u);
  EXPECT_FALSE(EmbeddedTableText("h100").has_value());
}

TEST(StepTableFileTest, ReadsUnitsColumnOrderAndWindowsLineEnds) {
  std::string text =
      "step_time [ms],decode_ctx [tokens/sequence],decode_seqs [sequences],prefill_ctx [tokens],prefill_tokens [tokens]\r\n"
      "5,100,1,0,0\r\n6,100,8,0,0\r\n";
  const Result<StepTimeTable> table = ParseStepTable(text, "t.csv");
  ASSERT_TRUE(table.ok()) << table.error().message;
  EXPECT_NEAR(table->NanosOf({0, 0, 8, 800}), 6e6, 1e-3);
}

TEST(StepTableFileTest, EveryBadFileIsOneMessageWithItsPlace) {
  ASSERT_EQ(ErrorOf(Good()), "accepted");
  const auto broken = [](const std::string& from, const std::string& to) {
    std::string s = Good();
    s.replace(s.find(from), from.size(), to);
    return ErrorOf(s);
  };
  EXPECT_EQ(broken("decode_seqs [", "decode_seq ["), "t.csv:2:46: column 'decode_seq': unknown; did you mean 'decode_seqs'?");
  EXPECT_EQ(broken("[us]", "[min]").substr(0, 12), "t.csv:2:110:");
  EXPECT_EQ(broken("6.5", "6.5x"), "t.csv:4:11: step_time = '6.5x': must be a number > 0");
  EXPECT_EQ(broken("6.5", "0"), "t.csv:4:11: step_time = '0': must be a number > 0");
  EXPECT_EQ(broken("6.5", "inf").substr(0, 11), "t.csv:4:11:");
  EXPECT_EQ(broken("0,0,8,100,6.5", "0,0,-8,100,6.5").substr(0, 37), "t.csv:4:5: decode_seqs = '-8': must b");
  EXPECT_EQ(broken("0,0,8,100,6.5", "0,0,8,6.5").substr(0, 20), "t.csv:4:1: 4 values:");
  EXPECT_EQ(broken("0,0,8,100,6.5", "0,0,1,100,6.5").substr(0, 36), "t.csv:4:1: the same step as line 3: ");
  EXPECT_EQ(broken("0,0,8,100,6.5", "0,0,0,0,6.5").substr(0, 10), "t.csv:4:1:");
  EXPECT_EQ(broken("0,0,8,100,6.5", "0,7,8,100,6.5").substr(0, 10), "t.csv:4:3:");
  EXPECT_EQ(broken("64,0,8,100,9\n", "").substr(0, 30), "t.csv:6:1: no row for prefill_");
  EXPECT_NE(broken("6.5", "4").find("falls"), std::string::npos);
  EXPECT_EQ(broken("6.5", "4").substr(0, 10), "t.csv:2:1:");
  EXPECT_EQ(ErrorOf("").substr(0, 26), "t.csv:1:1: no header line:");
  EXPECT_EQ(ErrorOf(kHeader).substr(0, 18), "t.csv:2:1: no rows");
}

}  // namespace
}  // namespace foretoken
