// A trace cut, turned and laid over itself keeps what its requests are and share.
#include "runtime/workload/reshape.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace foretoken {
namespace {

// Ten requests a second apart; the odd ones continue the answer of the one before them.
Trace Recorded() {
  constexpr uint64_t kShared = (uint64_t{1} << 63) | 7;
  Trace t;
  for (uint64_t k = 1; k <= 10; ++k) {
    TraceRequest r;
    r.meta.id = RequestId(k);
    r.meta.arrival = Instant::FromNanos(static_cast<int64_t>(k) * 1'000'000'000);
    r.meta.prompt_tokens = TokenCount(static_cast<int64_t>(100 * k));
    r.meta.session = (k + 1) / 2;
    r.meta.segments.push_back({kShared, TokenCount(50)});
    r.meta.segments.push_back({k % 2 == 0 ? OutputContent(RequestId(k - 1)) : PrivateContent(RequestId(k)), TokenCount(20)});
    r.truth.output_tokens = TokenCount(static_cast<int64_t>(k));
    t.requests.push_back(r);
  }
  return t;
}

std::multiset<int64_t> Outputs(const Trace& t) {
  std::multiset<int64_t> out;
  for (const TraceRequest& r : t.requests) out.insert(r.truth.output_tokens.value());
  return out;
}

TEST(ReshapeTest, APartHasItsRequestsFromItsOwnStartOn) {
  const Trace half = Reshape(Recorded(), {.from = 0.5, .to = 1}, 9);
  ASSERT_EQ(half.requests.size(), 5u);
  EXPECT_EQ(Outputs(half), (std::multiset<int64_t>{6, 7, 8, 9, 10}));
  for (size_t k = 0; k < 5; ++k) {
    EXPECT_EQ(half.requests[k].meta.id.value(), k + 1);
    EXPECT_EQ(half.requests[k].meta.arrival.nanos(), static_cast<int64_t>(k) * 1'000'000'000);
  }
}

TEST(ReshapeTest, EverySeedTurnsToAnotherStartAndLosesNothing) {
  std::set<int64_t> first;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const Trace t = Reshape(Recorded(), {.rotate = true}, seed);
    EXPECT_EQ(Outputs(t), Outputs(Recorded())) << "seed " << seed;
    for (size_t k = 1; k < t.requests.size(); ++k)
      EXPECT_GE(t.requests[k].meta.arrival, t.requests[k - 1].meta.arrival) << "seed " << seed;
    EXPECT_LT(t.requests.back().meta.arrival.nanos(), 10'000'000'000) << "within one turn";
    first.insert(t.requests.front().truth.output_tokens.value());
  }
  EXPECT_EQ(first.size(), 5u);
  EXPECT_EQ(Reshape(Recorded(), {.rotate = true}, 1).requests.front().truth.output_tokens.value(), 1);
}

TEST(ReshapeTest, AnswersAreStillNamedByTheTurnThatFollowsThem) {
  const Trace t = Reshape(Recorded(), {.rotate = true, .copies = 3}, 3);
  std::map<std::pair<uint64_t, int64_t>, uint64_t> opening;  // (session, output of the opening) -> id
  for (const TraceRequest& r : t.requests)
    if (r.truth.output_tokens.value() % 2 == 1) opening[{r.meta.session, r.truth.output_tokens.value()}] = r.meta.id.value();
  ASSERT_EQ(t.requests.size(), 30u);
  size_t followed = 0;
  for (const TraceRequest& r : t.requests) {
    const int64_t output = r.truth.output_tokens.value();
    const uint64_t content = r.meta.segments[1].content;
    if (output % 2 == 1) {
      EXPECT_EQ(content, PrivateContent(r.meta.id));
      continue;
    }
    EXPECT_EQ(content, OutputContent(RequestId(opening.at({r.meta.session, output - 1}))));
    ++followed;
  }
  EXPECT_EQ(followed, 15u);
}

TEST(ReshapeTest, CopiesCompeteForTimeButShareNoPromptWithEachOther) {
  const Trace t = Reshape(Recorded(), {.copies = 2}, 1);
  std::map<uint64_t, size_t> shared;
  for (const TraceRequest& r : t.requests) ++shared[r.meta.segments[0].content];
  ASSERT_EQ(shared.size(), 2u);
  for (const auto& [content, requests] : shared) EXPECT_EQ(requests, 10u) << "shared within a copy";
  EXPECT_EQ(t.requests[1].meta.arrival.nanos() - t.requests[0].meta.arrival.nanos(), 0)
      << "the second copy begins half a turn on";
}

}  // namespace
}  // namespace foretoken
