#include "runtime/base/ids.h"

#include <gtest/gtest.h>

#include <concepts>
#include <unordered_set>

namespace foretoken {
namespace {

template <class A>
concept Computable = requires(A a) {
  a + 1;
}
|| requires(A a) { ++a; }
|| requires(A a) { a + a; };
template <class A, class B>
concept Comparable = requires(A a, B b) {
  a == b;
};

TEST(IdsTest, AnIdIsComparedAndHashedButNeverComputedWith) {
  static_assert(!Computable<RequestId>);
  static_assert(!Computable<InstanceId>);
  static_assert(!std::convertible_to<uint64_t, RequestId>);
  static_assert(!std::convertible_to<RequestId, uint64_t>);
  EXPECT_EQ(RequestId(3), RequestId(3));
  EXPECT_LT(RequestId(3), RequestId(4));
}

TEST(IdsTest, IdsOfDifferentThingsDoNotMix) {
  static_assert(!Comparable<InstanceId, ModelId>);
  static_assert(!std::convertible_to<InstanceId, ModelId>);
  static_assert(!std::convertible_to<RequestId, DecisionId>);
}

TEST(IdsTest, DenseIdsHashToDistinctLowBits) {
  // Hash tables take low bits; ids are dense or multiples of a power of two, which a plain identity hash would pile up.
  std::unordered_set<size_t> buckets;
  for (uint64_t i = 0; i < 64; ++i) buckets.insert(std::hash<RequestId>()(RequestId(i << 32)) % 256);
  EXPECT_GT(buckets.size(), 40u);  // 64 balls into 256 bins leave about 57 distinct
}

}  // namespace
}  // namespace foretoken
