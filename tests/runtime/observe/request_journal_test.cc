#include "runtime/observe/request_journal.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace foretoken {
namespace {

Instant At(double s) { return Instant() + Duration::FromSeconds(s); }

RequestMeta Meta(uint64_t id) {
  RequestMeta m;
  m.id = RequestId(id);
  m.prompt_tokens = TokenCount(100);
  return m;
}

Prediction Predicted(uint32_t instance, double ttft, double e2e) {
  Prediction p;
  p.instance = InstanceId(instance);
  p.ttft = Duration::FromSeconds(ttft);
  p.ttft_p90 = Duration::FromSeconds(2 * ttft);
  p.e2e = Duration::FromSeconds(e2e);
  p.e2e_p90 = Duration::FromSeconds(2 * e2e);
  return p;
}

// One request's decision between two instances, the second of which is left out.
void Decide(RequestJournal& journal, uint64_t id, double at, double ttft = .2, double e2e = 1) {
  const RequestMeta meta = Meta(id);
  journal.OnSubmitted(meta, At(at), At(at));
  const Prediction first = Predicted(0, ttft, e2e);
  std::vector<Candidate> candidates(2);
  candidates[0].instance = InstanceId(1);
  candidates[1].instance = InstanceId(0);
  candidates[1].prediction = &first;
  const std::vector<double> scores = {kExcluded, 3.5};
  journal.OnChosen(meta.id, candidates, scores);
  DecisionRecord r;
  r.at = At(at) + Duration::Micros(15);
  r.request = meta.id;
  r.instance = InstanceId(0);
  r.decision = DecisionId(id);
  r.predicted = true;
  r.prediction = first;
  r.score = 3.5;
  journal.OnDecided(r);
}

TEST(RequestJournalTest, ADecisionIsShownWithItsCandidatesBestFirstAndWhatThenHappened) {
  RequestJournal journal({});
  Decide(journal, 7, 1);
  journal.OnFirstToken(RequestId(7), At(1.25));
  journal.OnFirstToken(RequestId(7), At(1.5));  // after a preemption: says nothing
  journal.OnEnded(RequestId(7), OutcomeKind::kFinished, TokenCount(11), At(2));
  const JournalView v = journal.View(At(2));
  ASSERT_EQ(v.decisions.size(), 1u);
  const DecisionSeen& d = v.decisions[0];
  EXPECT_EQ(d.instance, InstanceId(0));
  ASSERT_EQ(d.candidates->size(), 2u);
  EXPECT_EQ((*d.candidates)[0].instance, InstanceId(0));
  EXPECT_TRUE((*d.candidates)[0].predicted);
  EXPECT_EQ((*d.candidates)[1].score, std::numeric_limits<double>::infinity());
  EXPECT_EQ(d.first_token, At(1.25));
  EXPECT_EQ(d.ended, At(2));
  EXPECT_EQ(d.outcome, OutcomeKind::kFinished);
  EXPECT_EQ(d.output_tokens, 11);
  EXPECT_EQ(v.totals, (RequestTotals{1, 1, 1, 0, 0, 0, 0, 0, 0, 11}));
  EXPECT_NEAR(v.latest.ttft.Quantile(.5).value(), .25, .01);
  EXPECT_NEAR(v.latest.e2e.Quantile(.5).value(), 1, .04);
  EXPECT_NEAR(v.latest.tpot.Quantile(.5).value(), .075, .003);
  EXPECT_EQ(v.latest.ttft_judged, 1u);
  EXPECT_NEAR(v.latest.ttft_error_sum, .2 / .25 - 1, .01);
  EXPECT_EQ(v.latest.e2e_below_p90, 1u);
  EXPECT_EQ(v.latest.met_slo, 0u);  // 75 ms a token
}

TEST(RequestJournalTest, WhatIsOlderThanTheWindowIsInTheTotalsOnly) {
  RequestJournal journal({});
  Decide(journal, 1, 1);
  journal.OnEnded(RequestId(1), OutcomeKind::kFinished, TokenCount(1), At(1.5));
  Decide(journal, 2, 30);
  journal.OnEnded(RequestId(2), OutcomeKind::kFinished, TokenCount(1), At(30.5));
  const JournalView v = journal.View(At(31));
  EXPECT_EQ(v.totals.finished, 2u);
  EXPECT_EQ(v.latest.finished, 1u);
  EXPECT_EQ(v.latest.e2e.count(), 1u);
  EXPECT_EQ(journal.View(At(60)).latest.finished, 0u);
}

TEST(RequestJournalTest, AFloodKeepsFewDecisionsAndCountsAll) {
  RequestJournal::Options o;
  o.decisions = 8;
  o.details_per_second = 20;
  RequestJournal journal(o);
  for (uint64_t id = 1; id <= 50'000; ++id) {
    Decide(journal, id, 1 + static_cast<double>(id) * 1e-5);
    journal.OnEnded(RequestId(id), OutcomeKind::kFinished, TokenCount(1), At(2));
  }
  const JournalView v = journal.View(At(2));
  EXPECT_EQ(v.totals.decided, 50'000u);
  EXPECT_EQ(v.totals.open, 0u);
  ASSERT_EQ(v.decisions.size(), 8u);
  for (size_t i = 1; i < v.decisions.size(); ++i) EXPECT_GT(v.decisions[i - 1].number, v.decisions[i].number);
  // 20 at once and 20 a second, over half a second.
  EXPECT_LT(v.decisions.front().number, 50'000u);
}

TEST(RequestJournalTest, EveryEndIsCountedOnceAndUnderItsName) {
  RequestJournal journal({});
  for (uint64_t id = 1; id <= 5; ++id) Decide(journal, id, 1);
  journal.OnRejected(RequestId(1), OutcomeReason::kShed, At(2));
  journal.OnRejected(RequestId(1), OutcomeReason::kShed, At(2));
  journal.OnRejected(RequestId(2), OutcomeReason::kRetriesExhausted, At(2));
  journal.OnRejected(RequestId(3), OutcomeReason::kNoCandidate, At(2));
  journal.OnEnded(RequestId(4), OutcomeKind::kCancelled, TokenCount(), At(2));
  const RequestTotals& t = journal.totals();
  EXPECT_EQ(t.shed, 1u);
  EXPECT_EQ(t.failed, 1u);
  EXPECT_EQ(t.rejected, 1u);
  EXPECT_EQ(t.cancelled, 1u);
  EXPECT_EQ(t.open, 1u);
  EXPECT_EQ(t.arrived, t.finished + t.failed + t.rejected + t.shed + t.cancelled + t.open);
}

TEST(RequestJournalTest, SketchesOfSeveralSchedulersAddUp) {
  RequestJournal a({}), b({});
  Decide(a, 1, 1);
  Decide(b, 2, 1);
  Decide(b, 3, 1);
  a.OnFirstToken(RequestId(1), At(1.1));
  b.OnFirstToken(RequestId(2), At(1.2));
  b.OnFirstToken(RequestId(3), At(1.3));
  WindowSketches all = a.View(At(2)).latest;
  all.Merge(b.View(At(2)).latest);
  EXPECT_EQ(all.arrived, 3u);
  EXPECT_EQ(all.ttft.count(), 3u);
  EXPECT_NEAR(all.ttft.Quantile(.5).value(), .2, .01);
}

}  // namespace
}  // namespace foretoken
