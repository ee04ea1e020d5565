#include "integration/transport/frame_assembler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "runtime/base/prng.h"
#include "schema/codec.h"
#include "tests/testing/random_messages.h"

namespace foretoken {
namespace {

using testing::kMessageKinds;
using testing::RandomMessage;
using Bytes = std::vector<std::byte>;

Bytes Hostile(Prng& prng, size_t n) {
  Bytes out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(prng.Next());
  return out;
}

TEST(FrameAssemblerTest, FramesComeOutWholeHoweverTheBytesAreCut) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    std::vector<Message> sent;
    Bytes wire;
    for (size_t k = 0; k < 60; ++k) {
      sent.push_back(RandomMessage(k % kMessageKinds, prng));
      const Frame f = std::move(Encode(sent.back())).value();
      wire.insert(wire.end(), f.begin(), f.end());
    }
    FrameAssembler assembler(kFrameBytesMax);
    size_t got = 0;
    for (size_t at = 0; at < wire.size();) {
      const size_t n = std::min<size_t>(wire.size() - at, 1 + prng.Below(prng.Below(4) == 0 ? 20'000 : 40));
      assembler.Append({wire.data() + at, n});
      at += n;
      for (auto frame = assembler.Next(); !frame.empty(); frame = assembler.Next()) {
        ASSERT_LT(got, sent.size());
        EXPECT_EQ(reinterpret_cast<uintptr_t>(frame.data()) % 8, 0u);
        EXPECT_EQ(std::move(Decode(frame)).value(), sent[got++]);
      }
    }
    EXPECT_EQ(got, sent.size());
    EXPECT_EQ(assembler.held_bytes(), 0u);
  }
}

TEST(FrameAssemblerTest, AForgedLengthIsRefusedFromItsHeadAlone) {
  const auto head = [](std::initializer_list<uint32_t> words) {
    Bytes out(words.size() * 4);
    std::memcpy(out.data(), std::data(words), out.size());
    return out;
  };
  const auto state = [&](std::initializer_list<uint32_t> words) { return ReadFrameHead(head(words), kFrameBytesMax).state; };
  EXPECT_EQ(state({0, 1 << 28}), FrameHead::State::kInvalid);
  EXPECT_EQ(state({0, UINT32_MAX}), FrameHead::State::kInvalid);
  EXPECT_EQ(state({UINT32_MAX}), FrameHead::State::kInvalid);
  EXPECT_EQ(state({kFrameSegmentsMax}), FrameHead::State::kInvalid);
  EXPECT_EQ(state({0, 0}), FrameHead::State::kInvalid);
  EXPECT_EQ(state({1, 131'071, 131'071}), FrameHead::State::kInvalid);  // each fits, the sum does not
  EXPECT_EQ(state({0}), FrameHead::State::kIncomplete);
  EXPECT_EQ(state({0, 131'071}), FrameHead::State::kComplete);
  FrameAssembler assembler(kFrameBytesMax);
  assembler.Append(head({0, UINT32_MAX}));
  EXPECT_TRUE(assembler.Next().empty());
  EXPECT_EQ(assembler.broken_rule(), "at most 1 MiB");
  EXPECT_LT(assembler.memory_bytes(), 64u);
}

// As a connection does: what decodes goes on, the first bad byte ends it. Random bytes, mutated, truncated and spliced frames.
TEST(FrameAssemblerTest, AMillionHostileBytesNeitherCrashNorGrowIt) {
  const uint64_t seed = 20261125;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Prng prng(seed);
  size_t fed = 0, connections = 0, decoded = 0, refused = 0;
  while (fed < 3'000'000) {
    ++connections;
    FrameAssembler assembler(kFrameBytesMax);
    bool open = true;
    for (int part = 0; open && part < 20; ++part) {
      Bytes in;
      if (prng.Below(3) == 0) {
        in = Hostile(prng, 1 + prng.Below(300));
      } else {
        in = std::move(Encode(RandomMessage(prng.Below(kMessageKinds), prng))).value();
        const uint64_t how = prng.Below(3);
        for (uint64_t k = how == 0 ? 0 : 1 + prng.Below(4); k > 0; --k)
          in[prng.Below(in.size())] = static_cast<std::byte>(prng.Next());
        if (how == 2) in.resize(1 + prng.Below(in.size()));
      }
      fed += in.size();
      assembler.Append(in);
      for (auto frame = assembler.Next(); open && !frame.empty(); frame = assembler.Next()) {
        const bool ok = Decode(frame).ok();
        ++(ok ? decoded : refused);
        open = ok;
      }
      open = open && assembler.broken_rule().empty();
      ASSERT_LE(assembler.memory_bytes(), 2 * kFrameBytesMax);
    }
  }
  EXPECT_GT(connections, 1'000u);
  EXPECT_GT(decoded, 1'000u);
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace foretoken
