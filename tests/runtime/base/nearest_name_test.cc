#include "runtime/base/nearest_name.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

std::string RandomWord(Prng& prng) {
  std::string word(prng.Below(6), 'a');
  for (char& c : word) c = static_cast<char>('a' + prng.Below(3));
  return word;
}

TEST(NearestNameTest, DistanceCountsInsertionsDeletionsAndReplacements) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("simulat", "simulate"), 1);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
}

TEST(NearestNameTest, DistanceIsAMetric) {
  for (const uint64_t seed : testing::Seeds(200)) {
    Prng prng(seed);
    const std::string a = RandomWord(prng), b = RandomWord(prng), c = RandomWord(prng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + a + ", " + b + ", " + c);
    EXPECT_EQ(EditDistance(a, b), EditDistance(b, a));
    EXPECT_EQ(EditDistance(a, b) == 0, a == b);
    EXPECT_LE(EditDistance(a, c), EditDistance(a, b) + EditDistance(b, c));
  }
}

TEST(NearestNameTest, TheNearestNameIsSuggestedAndTheFirstOfEquals) {
  const std::vector<std::string_view> names = {"simulate", "serve", "status"};
  EXPECT_EQ(NearestName("simluate", names), "simulate");
  EXPECT_EQ(NearestName("statsu", names), "status");
  EXPECT_EQ(NearestName("ab", {"ax", "ay"}), "ax");
  EXPECT_EQ(NearestName("x", {}), "");
}

}  // namespace
}  // namespace foretoken
