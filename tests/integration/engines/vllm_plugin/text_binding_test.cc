// What a router expects of an engine's blocks from the text alone: against an engine whose blocks are known.
#include "integration/engines/vllm/text_binding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

constexpr int32_t kBlock = 16;            // tokens of an engine's block
constexpr int64_t kPerText = 4 * kBlock;  // tokens of a block of text

// A text as the words it is made of, one to a block of text; and what comes of it here and at the engine.
struct Text {
  std::vector<uint64_t> words;
  bool straddles = false;

  std::vector<PromptSegment> segments() const {
    std::vector<PromptSegment> out;
    uint64_t hash = 1;
    for (const uint64_t w : words) out.push_back({hash = Mix64(hash, w), TokenCount(kPerText)});
    return out;
  }
  int64_t tokens() const { return static_cast<int64_t>(words.size()) * kPerText; }
  std::vector<BlockHash> blocks() const {
    std::vector<BlockHash> out;
    uint64_t hash = 2;
    for (size_t i = 0; i < words.size(); ++i) {
      // The last of each may lie across the border: it is another one if other text follows.
      const uint64_t next = straddles && i + 1 < words.size() ? words[i + 1] + 1 : 0;
      for (uint64_t k = 0; k < 4; ++k) out.push_back(BlockHash(hash = Mix64(hash, Mix64(words[i] * 4 + k, k == 3 ? next : 0))));
    }
    return out;
  }
};

std::vector<BlockHash> Expected(const TextBinding& binding, const Text& text) {
  const auto blocks = binding.Expected(text.segments(), text.tokens(), kBlock);
  return {blocks.begin(), blocks.end()};
}

void Arrive(TextBinding& binding, const Text& text) {
  binding.OnArrived(text.segments(), text.tokens(), kBlock, text.blocks());
}

TEST(TextBindingTest, OfTextThatNobodyHasSentNothingIsExpected) {
  TextBinding binding;
  EXPECT_TRUE(Expected(binding, {{1, 2, 3}}).empty());
  Arrive(binding, {{1, 2, 3}});
  EXPECT_TRUE(Expected(binding, {{9, 2, 3}}).empty()) << "a text that begins otherwise shares nothing, whatever follows";
  EXPECT_EQ(Expected(binding, {{1, 2, 3}}), (Text{{1, 2, 3}}.blocks()));
}

TEST(TextBindingTest, PromptsThatPartedTellWhatAThirdShares) {
  TextBinding binding;
  Arrive(binding, {{1, 2, 3, 4}});
  Arrive(binding, {{1, 2, 7, 8}});
  EXPECT_EQ(Expected(binding, {{1, 2, 5, 6}}), (Text{{1, 2}}.blocks()));
  EXPECT_EQ(Expected(binding, {{1, 2, 7, 8}}), (Text{{1, 2, 7, 8}}.blocks()));
}

TEST(TextBindingTest, WhereTextPartsTheEnginesBlocksMayPartEarlier) {
  TextBinding binding;
  Arrive(binding, {{1, 2, 3, 4}, true});
  Arrive(binding, {{1, 2, 7, 8}, true});
  std::vector<BlockHash> shared = Text{{1, 2, 5}, true}.blocks();
  shared.resize(7);  // of the eighth a part is of what follows
  EXPECT_EQ(Expected(binding, {{1, 2, 5, 6}, true}), shared);
}

TEST(TextBindingTest, TheNextTurnHoldsWhatWasAnswered) {
  TextBinding binding;
  const Text first{{1, 2, 3}};
  Arrive(binding, first);
  const std::vector<BlockHash> answer = {BlockHash(71), BlockHash(72)};
  binding.OnEnded(first.segments(), first.tokens() + 2 * kBlock, answer);
  std::vector<BlockHash> all = first.blocks();
  all.insert(all.end(), answer.begin(), answer.end());
  EXPECT_EQ(Expected(binding, {{1, 2, 3, 4, 5}}), all);
  EXPECT_EQ(Expected(binding, first), first.blocks()) << "the same prompt again has no answer in it";
}

// Whatever was sent before: what is expected is a beginning of some earlier prompt, never longer than the prompt itself; and of a prompt
// sent before it is all of its blocks where no other parted from it within.
TEST(TextBindingTest, WhatIsExpectedAlwaysBeginsAsTheEnginesBlocksDo) {
  for (const uint64_t seed : testing::Seeds(50)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    TextBinding binding;
    for (int k = 0; k < 200; ++k) {
      Text text;
      for (uint64_t n = 1 + prng.Below(6); n > 0; --n) text.words.push_back(prng.Below(3));
      const std::vector<BlockHash> truth = text.blocks(), expected = Expected(binding, text);
      ASSERT_LE(expected.size(), truth.size());
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), truth.begin())) << "blocks that the prompt does not have";
      Arrive(binding, text);
    }
  }
}

TEST(TextBindingTest, ItForgetsTheOldest) {
  TextBinding binding;
  for (uint64_t k = 0; k < 70'000; ++k) Arrive(binding, {{k}});
  EXPECT_EQ(binding.size(), 65'536u);
  EXPECT_TRUE(Expected(binding, {{0}}).empty());
  EXPECT_FALSE(Expected(binding, {{69'999}}).empty());
}

}  // namespace
}  // namespace foretoken
