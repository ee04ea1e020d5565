// What an evaluation concludes from given figures: spreads, paired comparisons, and sentences that hide no loss.
#include "integration/eval/evaluation.h"

#include <gtest/gtest.h>

#include "integration/eval/findings.h"

namespace foretoken {
namespace {

// Policies round_robin, least_requests, min_e2e over as many seeds as there are values.
Evaluation Given(const std::vector<std::vector<double>>& e2e_by_policy) {
  Grid grid;
  grid.seeds = e2e_by_policy.front().size();
  grid.dimensions = {{"topology", {"t"}},
                     {"workload", {"w"}},
                     {"faults", {"none"}},
                     {"load", {"0.8"}},
                     {"scheduler.policy", {"round_robin", "least_requests", "min_e2e"}},
                     {"seed", {}}};
  std::vector<boost::json::object> rows;
  for (size_t p = 0; p < e2e_by_policy.size(); ++p) {
    for (size_t s = 0; s < grid.seeds; ++s) {
      GridCell cell;
      cell.at = {0, 0, 0, 0, p, s};
      grid.cells.push_back(cell);
      rows.push_back({{"figures", boost::json::object{{"e2e_mean", e2e_by_policy[p][s]}}}});
    }
  }
  for (size_t s = 0; s < grid.seeds; ++s) grid.dimensions.back().values.push_back(std::to_string(s));
  return Evaluation(grid, rows);
}

TEST(EvaluationTest, PairingSeesWhatSpreadOverSeedsWouldHide) {
  // Seeds differ by far more than policies do, but least_requests is 5 % better on each.
  const Evaluation e = Given({{10, 20, 40, 80}, {9.5, 19, 38, 76}, {10, 20, 40, 80}});
  const std::optional<Comparison> c = e.Compare(1, 0, FigureOf("e2e_mean"));
  ASSERT_TRUE(c.has_value());
  EXPECT_NEAR(c->change, -0.05, 1e-12);
  EXPECT_LT(c->half_width, e.Over(0, "e2e_mean")->deviation / e.Over(0, "e2e_mean")->mean);
}

TEST(EvaluationTest, ADifferenceThatTheSeedsDoNotAgreeOnIsATie) {
  const Evaluation e = Given({{10, 10, 10, 10}, {9, 11, 9, 10.5}, {10, 10, 10, 10}});
  EXPECT_EQ(e.Compare(1, 0, FigureOf("e2e_mean"))->verdict, Verdict::kTie);
}

TEST(EvaluationTest, ADifferenceBelowHalfAPercentIsATieHoweverCertain) {
  const Evaluation e = Given({{10, 10, 10}, {9.96, 9.96, 9.96}, {9.9, 9.9, 9.9}});
  EXPECT_EQ(e.Compare(1, 0, FigureOf("e2e_mean"))->verdict, Verdict::kTie);
  EXPECT_EQ(e.Compare(2, 0, FigureOf("e2e_mean"))->verdict, Verdict::kBetter);
}

// Blocks of one run: `values` are their E2E means.
boost::json::object WithBlocks(boost::json::object row, const std::vector<double>& values) {
  boost::json::array blocks;
  for (const double v : values) blocks.emplace_back(boost::json::array{0.1, v, 1.0});
  row["detail"] = boost::json::object{{"blocks", std::move(blocks)}};
  return row;
}

TEST(EvaluationTest, TheBootstrapOverTimeIsWideWhereOnePieceDecides) {
  const Evaluation plain = Given({{10}, {10}, {10}});
  EXPECT_FALSE(plain.Bootstrap(1, 0, FigureOf("e2e_mean")).has_value()) << "no blocks, no interval";
  std::vector<boost::json::object> rows;
  rows.push_back(WithBlocks(plain.Row(0, 0), {10, 10, 10, 10, 10, 10}));
  rows.push_back(WithBlocks(plain.Row(1, 0), {9, 9, 9, 9, 9, 9}));       // a little, always
  rows.push_back(WithBlocks(plain.Row(2, 0), {10, 10, 10, 4, 10, 10}));  // the same in the mean, in one piece
  const Evaluation e(plain.grid(), rows);
  const std::optional<Interval> steady = e.Bootstrap(1, 0, FigureOf("e2e_mean")),
                                once = e.Bootstrap(2, 0, FigureOf("e2e_mean"));
  ASSERT_TRUE(steady && once);
  EXPECT_NEAR(steady->low, -0.1, 1e-12);
  EXPECT_NEAR(steady->high, -0.1, 1e-12);
  EXPECT_LT(once->low, -0.15);
  EXPECT_GT(once->high, -0.05);
  EXPECT_FALSE(e.Bootstrap(1, 0, FigureOf("ttft_p99")).has_value()) << "blocks have means only";
}

TEST(EvaluationTest, OneSeedGivesNoVerdict) {
  EXPECT_EQ(Given({{10}, {5}, {20}}).Compare(1, 0, FigureOf("e2e_mean"))->verdict, Verdict::kUnknown);
}

TEST(FindingsTest, PredictionIsComparedWithTheBestSimplePolicyAndALossIsSaid) {
  const std::vector<FindingGroup> groups = FindingsOf(Given({{12, 12, 12}, {10, 10, 10}, {11, 11, 11}}));
  ASSERT_EQ(groups.size(), 1u);
  ASSERT_EQ(groups[0].sentences.size(), 1u) << "one predictive policy";
  EXPECT_NE(groups[0].sentences[0].find("E2E mean +10.0 % ± 0.0 against least_requests (worse)"), std::string::npos)
      << groups[0].sentences[0];
  EXPECT_NE(groups[0].overview.find("better in 0, worse in 1, tied in 0 of 1"), std::string::npos);
}

TEST(FindingsTest, TheReferenceOfAPredictivePolicyIsNeverAnotherPredictiveOne) {
  const std::vector<FindingGroup> groups = FindingsOf(Given({{12, 12, 12}, {10, 10, 10}, {8, 8, 8}}));
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_NE(groups[0].sentences.at(0).find("E2E mean -20.0 % ± 0.0 against least_requests (better)"), std::string::npos);
}

TEST(EvaluationTest, WithChangesOneDimensionOnly) {
  const Evaluation e = Given({{1, 2}, {3, 4}, {5, 6}});
  for (size_t from = 0; from < 3; ++from)
    for (size_t to = 0; to < 3; ++to) EXPECT_EQ(e.With(from, 4, to), to);
}

}  // namespace
}  // namespace foretoken
