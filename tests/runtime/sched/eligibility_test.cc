// Eligibility states facts: each way in which an instance cannot serve a request has its own reason.
#include "runtime/sched/eligibility.h"

#include <gtest/gtest.h>

namespace foretoken {
namespace {

constexpr ModelId kLlama{0}, kQwen{1}, kAdapter{2};

Instance Serving() {
  Instance i;
  i.models = {kLlama};
  i.adapters = {kAdapter};
  i.max_model_len = 1000;
  i.kv_tokens = 800;
  return i;
}

RequestMeta Asking(ModelId model, int64_t prompt) {
  RequestMeta r;
  r.model = model;
  r.prompt_tokens = TokenCount(prompt);
  return r;
}

TEST(EligibilityTest, AnInstanceServesItsModelsAndItsAdaptersOnly) {
  EXPECT_EQ(ExclusionOf(Asking(kLlama, 10), PlacementRole::kWhole, Serving()), Exclusion::kNone);
  EXPECT_EQ(ExclusionOf(Asking(kAdapter, 10), PlacementRole::kWhole, Serving()), Exclusion::kNone);
  EXPECT_EQ(ExclusionOf(Asking(kQwen, 10), PlacementRole::kWhole, Serving()), Exclusion::kModel);
}

TEST(EligibilityTest, APartialInstanceTakesItsPartAndNeverAWholeRequest) {
  Instance prefill = Serving(), decode = Serving();
  prefill.role = InstanceRole::kPrefill;
  decode.role = InstanceRole::kDecode;
  const RequestMeta r = Asking(kLlama, 10);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kPrefill, prefill), Exclusion::kNone);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kDecode, prefill), Exclusion::kRole);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kWhole, prefill), Exclusion::kRole);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kDecode, decode), Exclusion::kNone);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kPrefill, decode), Exclusion::kRole);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kWhole, decode), Exclusion::kRole);
  EXPECT_EQ(ExclusionOf(r, PlacementRole::kPrefill, Serving()), Exclusion::kNone);
}

TEST(EligibilityTest, LengthLimitsHoldAtTheirEdgeAndUnknownOnesDoNotExclude) {
  EXPECT_EQ(ExclusionOf(Asking(kLlama, 800), PlacementRole::kWhole, Serving()), Exclusion::kNone);
  EXPECT_EQ(ExclusionOf(Asking(kLlama, 801), PlacementRole::kWhole, Serving()), Exclusion::kNeverFits);
  EXPECT_EQ(ExclusionOf(Asking(kLlama, 1000), PlacementRole::kWhole, Serving()), Exclusion::kTooLong);
  Instance unknown = Serving();
  unknown.max_model_len = unknown.kv_tokens = 0;
  EXPECT_EQ(ExclusionOf(Asking(kLlama, 1'000'000), PlacementRole::kWhole, unknown), Exclusion::kNone);
}

TEST(EligibilityTest, OnlyAServingInstanceTakesNewRequests) {
  const std::pair<InstanceState, Exclusion> cases[] = {
      {InstanceState::kServing, Exclusion::kNone},      {InstanceState::kWarming, Exclusion::kWarming},
      {InstanceState::kCordoned, Exclusion::kCordoned}, {InstanceState::kDraining, Exclusion::kDraining},
      {InstanceState::kAsleep, Exclusion::kAsleep},     {InstanceState::kDead, Exclusion::kDead}};
  for (const auto& [state, expected] : cases) {
    Instance i = Serving();
    i.state = state;
    EXPECT_EQ(ExclusionOf(Asking(kLlama, 10), PlacementRole::kWhole, i), expected);
    EXPECT_FALSE(ReasonOf(expected).empty());
  }
}

TEST(EligibilityTest, EveryInstanceGetsItsOwnAnswerInOrder) {
  std::vector<Instance> instances(3, Serving());
  instances[1].state = InstanceState::kDead;
  instances[2].models = {kQwen};
  EXPECT_EQ(Eligibility(Asking(kLlama, 10), PlacementRole::kWhole, instances),
            (std::vector<Exclusion>{Exclusion::kNone, Exclusion::kDead, Exclusion::kModel}));
}

TEST(EligibilityTest, ARequestTooLargeForEveryInstanceOfItsModelIsToldSo) {
  using E = Exclusion;
  const auto reject = [](std::vector<E> e) { return RejectionOf(e); };
  EXPECT_EQ(reject({E::kTooLong, E::kModel}), OutcomeReason::kTooLong);
  EXPECT_EQ(reject({E::kNeverFits, E::kTooLong}), OutcomeReason::kNeverFits);
  EXPECT_EQ(reject({E::kTooLong, E::kDead}), OutcomeReason::kNoCandidate) << "the dead one may come back and serve it";
  EXPECT_EQ(reject({E::kModel, E::kRole}), OutcomeReason::kNoCandidate);
  EXPECT_EQ(reject({}), OutcomeReason::kNoCandidate);
}

}  // namespace
}  // namespace foretoken
