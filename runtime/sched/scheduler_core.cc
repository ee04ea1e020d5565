#include "runtime/sched/scheduler_core.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

template <class T>
bool Contains(const std::vector<T>& v, T x) {
  return std::find(v.begin(), v.end(), x) != v.end();
}

bool IsCrash(OutcomeReason reason) { return reason == OutcomeReason::kEngineRestarted; }
bool IsDown(OutcomeReason reason) { return IsCrash(reason) || reason == OutcomeReason::kEngineDown; }

std::vector<int64_t> KvTokensOf(const std::vector<SchedulerCore::InstanceInfo>& instances) {
  std::vector<int64_t> tokens;
  for (const SchedulerCore::InstanceInfo& i : instances) tokens.push_back(i.facts.kv_tokens);
  return tokens;
}

}  // namespace

Result<std::unique_ptr<SchedulerCore>> SchedulerCore::Make(Options options, std::vector<InstanceInfo> instances,
                                                           LengthEstimator* lengths) {
  auto policy = MakePolicy(options.policy, options.weights);
  if (!policy.ok()) return policy.error();
  if (instances.empty()) return Error{"scheduler: no instance to schedule on: the topology's pools need at least one"};
  FT_CHECK(lengths != nullptr);
  std::unique_ptr<Policy> prefilter;
  if (options.predict_max > 0) {
    auto made = MakePolicy(options.prefilter, options.weights);
    if (!made.ok()) return Error{"scheduler prefilter: " + made.error().message};
    if (made.value()->needs() != PolicyNeeds::kLoads)
      return Error{"scheduler prefilter: " + options.prefilter + ": must go by loads alone, such as lmetricw or least_tokens"};
    prefilter = std::move(made).value();
  }
  return std::unique_ptr<SchedulerCore>(
      new SchedulerCore(std::move(options), std::move(instances), lengths, std::move(policy).value(), std::move(prefilter)));
}

Status SchedulerCore::SetPolicy(const std::string& policy, const PolicyWeights& weights) {
  auto made = MakePolicy(policy, weights);
  if (!made.ok()) return made.error();
  policy_ = std::move(made).value();
  options_.policy = policy;
  options_.weights = weights;
  return Status();
}

SchedulerCore::SchedulerCore(Options options, std::vector<InstanceInfo> instances, LengthEstimator* lengths,
                             std::unique_ptr<Policy> policy, std::unique_ptr<Policy> prefilter)
    : options_(std::move(options)),
      instances_(std::move(instances)),
      lengths_(lengths),
      policy_(std::move(policy)),
      prefilter_(std::move(prefilter)),
      prng_(Prng::ForStream(options_.seed, 0x5C4ED)),
      ledger_(instances_.size()),
      prefixes_(KvTokensOf(instances_)),
      down_until_(instances_.size()),
      reserved_last_(instances_.size()) {
  for (uint32_t i = 0; i < instances_.size(); ++i) members_.push_back(InstanceId(i));
}

InstanceId SchedulerCore::AddInstance(InstanceInfo info) {
  const InstanceId id(static_cast<uint32_t>(instances_.size()));
  AddInstance(id, std::move(info));
  return id;
}

void SchedulerCore::AddInstance(InstanceId id, InstanceInfo info) {
  while (instances_.size() <= id.value()) {  // numbers between are nobody's, or join later
    instances_.emplace_back();
    instances_.back().facts.state = InstanceState::kDead;
    ledger_.AddInstance();
    down_until_.emplace_back();
    reserved_last_.push_back(0);
  }
  info.facts.id = id;
  instances_[id.value()] = std::move(info);
  members_.insert(std::upper_bound(members_.begin(), members_.end(), id), id);
  // Sized for a number of instances: it begins anew, which forgets hits and nothing else.
  prefixes_ = PrefixDirectory(KvTokensOf(instances_));
}

void SchedulerCore::RemoveInstance(InstanceId instance) {
  std::erase(members_, instance);
  slow_start_.End(instance);
  prefixes_.Clear(instance);
  InstanceInfo& info = instances_[instance.value()];
  info.facts.state = InstanceState::kDead;
  info.step_time = {};
}

void SchedulerCore::OnSchedule(const RequestMeta& request, Instant now, SchedulerEffects& effects) {
  Begin(request, now, 0, nullptr, effects);
}

void SchedulerCore::FindTargets(const RequestMeta& request, const Attempts* attempts, Instant now) {
  targets_.clear();
  exclusions_.clear();
  for (const InstanceId id : members_) {
    const Exclusion exclusion = ExclusionOf(request, PlacementRole::kWhole, instances_[id.value()].facts);
    exclusions_.push_back(exclusion);
    const bool failed = attempts != nullptr && Contains(attempts->excluded, id);
    if (exclusion == Exclusion::kNone && now >= down_until_[id.value()] && !failed) targets_.push_back(id);
  }
}

void SchedulerCore::Begin(const RequestMeta& request, Instant now, int32_t attempt, const Attempts* attempts,
                          SchedulerEffects& effects) {
  FindTargets(request, attempts, now);
  if (targets_.empty()) {
    ++counters_.rejected_no_candidate;
    attempts_.Erase(request.id.value());
    const bool ineligible = !Contains(exclusions_, Exclusion::kNone);
    const OutcomeReason first = ineligible ? RejectionOf(exclusions_) : OutcomeReason::kNoCandidate;
    effects.Reject(request.id, attempt == 0 ? first : OutcomeReason::kRetriesExhausted);
    return;
  }
  Round& round = Acquire();
  round.request = &request;
  round.attempt = attempt;
  // One quantile per request, for its life and on every candidate alike; never exactly 0 or 1.
  const double quantile = std::clamp(UnitFrom(Mix64(options_.seed ^ 0x9E17, request.id.value())), 1e-6, 1.0 - 1e-6);
  const LengthKey key{request.id, request.length_class, quantile, request.max_tokens, request.output_hint};
  round.query = {&request, quantile, lengths_->Total(key, TokenCount(0)), request.slo.value_or(options_.slo),
                 policy_->needs() == PolicyNeeds::kExternality};
  if (prefilter_ != nullptr && policy_->needs() >= PolicyNeeds::kPredictions &&
      targets_.size() > static_cast<size_t>(options_.predict_max))
    KeepBest(request, round.query.expected_output);
  round.fan_out.Open(now, now + options_.decision_deadline);
  for (InstanceId t : targets_) round.fan_out.AddTarget(t);
  if (policy_->needs() < PolicyNeeds::kPredictions) return Choose(round, now, effects);
  const DecisionId id = round.id;
  effects.ArmDeadline(id, round.fan_out.deadline());
  effects.SendPredict(id, targets_, round.query);
}

// The first of two stages: what the SCHEDULER knows by itself orders all targets, and the best of them are asked. Ties are broken by a hash,
// so that of many idle instances not always the same are asked.
void SchedulerCore::KeepBest(const RequestMeta& request, TokenCount expected_output) {
  candidates_.clear();
  const std::vector<int32_t>& cached = prefixes_.ExpectedCached(request);
  for (const InstanceId t : targets_) {
    const InstanceInfo& info = instances_[t.value()];
    candidates_.push_back({t, ledger_.load(t), nullptr, info.step_time.law ? &info.step_time : nullptr, info.facts.kv_tokens,
                           cached.empty() ? 0 : cached[t.value()]});
  }
  scores_.assign(candidates_.size(), kExcluded);
  prefilter_->Score({&request, expected_output, request.slo.value_or(options_.slo)}, candidates_, prng_, scores_);
  std::vector<std::pair<double, uint64_t>> order(targets_.size());
  for (size_t k = 0; k < order.size(); ++k)
    order[k] = {scores_[k], Mix64(Mix64(options_.seed, request.id.value()), targets_[k].value())};
  std::vector<size_t> index(order.size());
  for (size_t k = 0; k < index.size(); ++k) index[k] = k;
  const auto keep = static_cast<ptrdiff_t>(options_.predict_max);
  std::nth_element(index.begin(), index.begin() + keep, index.end(),
                   [&order](size_t a, size_t b) { return order[a] < order[b]; });
  counters_.prefiltered += index.size() - static_cast<size_t>(keep);
  index.resize(static_cast<size_t>(keep));
  std::sort(index.begin(), index.end());  // ascending again, as all who read targets expect
  for (size_t k = 0; k < index.size(); ++k) targets_[k] = targets_[index[k]];
  targets_.resize(index.size());
}

void SchedulerCore::OnPrediction(DecisionId decision, const Prediction& prediction, Instant now, SchedulerEffects& effects) {
  Round* round = Find(decision);
  if (round == nullptr || round->enqueued || !round->fan_out.Answer(prediction.instance, prediction)) {
    ++counters_.late_replies;
    return;
  }
  if (round->fan_out.complete()) Choose(*round, now, effects);
}

void SchedulerCore::OnUnreachable(DecisionId decision, InstanceId instance, Instant now, SchedulerEffects& effects) {
  Round* round = Find(decision);
  if (round == nullptr || round->enqueued || !round->fan_out.Fail(instance)) return;  // the round went on without it already
  if (round->fan_out.complete()) Choose(*round, now, effects);
}

void SchedulerCore::OnDeadline(DecisionId decision, Instant now, SchedulerEffects& effects) {
  Round* round = Find(decision);
  if (round == nullptr) return;  // over in time: the usual case
  if (round->enqueued) {         // the winner does not confirm its reservation: dispatch all the same, its ledger will catch up
    ++counters_.expired_rounds;
    return CommitIfServing(*round, now, effects);
  }
  ++counters_.expired_rounds;
  round->fan_out.Expire();
  Choose(*round, now, effects);
}

void SchedulerCore::ListCandidates(const Round& round) {
  candidates_.clear();
  const std::vector<int32_t>* cached = nullptr;
  if (policy_->needs() == PolicyNeeds::kLoads) cached = &prefixes_.ExpectedCached(*round.request);
  for (const FanOut::Target& t : round.fan_out.targets()) {
    const InstanceInfo& info = instances_[t.instance.value()];
    Candidate c{
        t.instance, ledger_.load(t.instance), nullptr, info.step_time.law ? &info.step_time : nullptr, info.facts.kv_tokens, 0};
    if (t.outcome == ReplyOutcome::kAnswered) {
      c.prediction = &t.prediction;
      c.cached_tokens = t.prediction.cached_tokens.value();
    } else if (cached != nullptr && !cached->empty()) {
      c.cached_tokens = (*cached)[t.instance.value()];
    }
    candidates_.push_back(c);
  }
}

void SchedulerCore::Choose(Round& round, Instant now, SchedulerEffects& effects) {
  ListCandidates(round);
  std::erase_if(candidates_, [this](const Candidate& c) { return !IsServing(c.instance); });
  if (candidates_.empty()) return BeginAnew(round, now, effects);
  const auto answered = std::count_if(candidates_.begin(), candidates_.end(), [](const Candidate& c) { return c.prediction; });
  const bool predictive = policy_->needs() >= PolicyNeeds::kPredictions;
  if (predictive) {
    counters_.unanswered += candidates_.size() - static_cast<size_t>(answered);
    if (answered == 0) ++counters_.by_ledger;
  }
  ExcludeUnusable();
  const int probe = slow_start_.active() && predictive ? HoldBackJoining(now) : -1;
  scores_.assign(candidates_.size(), kExcluded);
  policy_->Score({round.request, round.query.expected_output, round.query.slo}, candidates_, prng_, scores_);
  int best = PickLowest(candidates_, scores_, options_.seed, round.request->id, &round.runner_up);
  FT_CHECK(best >= 0);  // every policy leaves at least one candidate in
  round.probe = probe >= 0;
  if (round.probe) {  // nothing that it could be overtaken by would have it go elsewhere
    best = probe;
    round.runner_up = kExcluded;
  }
  round.score = scores_[static_cast<size_t>(best)];
  round.score_rule = policy_->score_rule();
  round.cached = candidates_[static_cast<size_t>(best)].cached_tokens;
  const Candidate winner = candidates_[static_cast<size_t>(best)];
  const auto& targets = round.fan_out.targets();
  round.chosen = static_cast<int>(
      std::find_if(targets.begin(), targets.end(), [&](const FanOut::Target& t) { return t.instance == winner.instance; }) -
      targets.begin());
  if (options_.shed_above > 0 && !round.probe && winner.prediction != nullptr &&
      winner.prediction->slo_violation > options_.shed_above && round.request->priority >= options_.shed_priority) {
    ++counters_.shed;
    const RequestId id = round.request->id;
    attempts_.Erase(id.value());
    Close(round);
    return effects.Reject(id, OutcomeReason::kShed);
  }
  EnqueueOrder order = OrderFor(round);
  // Past the deadline nothing would end a wait for a reply that does not come.
  order.guarded = predictive && winner.prediction != nullptr && !round.repicked && now < round.fan_out.deadline() &&
                  options_.repick != RepickRule::kAlwaysAccept && MayBeOvertaken(round, winner.instance);
  reserved_last_[winner.instance.value()] = ++reservations_;
  if (!order.guarded) {
    effects.SendEnqueue(order);
    return Commit(round, now, effects);
  }
  round.enqueued = true;
  effects.SendEnqueue(order);
}

bool SchedulerCore::MayBeOvertaken(const Round& round, InstanceId winner) const {
  return !options_.sole || reserved_last_[winner.value()] > round.opened;
}

void SchedulerCore::SendCancel(InstanceId instance, RequestId request, SchedulerEffects& effects) {
  reserved_last_[instance.value()] = ++reservations_;
  effects.SendCancel(instance, request);
}

// Instances believed hung or unreachable leave the candidates - unless that is most of them: then the observer is the likelier
// fault, and all are kept (protocol.md).
void SchedulerCore::ExcludeUnusable() {
  const auto unusable = [](const Candidate& c) { return c.prediction != nullptr && !c.prediction->usable; };
  const size_t n = static_cast<size_t>(std::count_if(candidates_.begin(), candidates_.end(), unusable));
  if (n == 0) return;
  if (2 * n > candidates_.size() || n == candidates_.size()) {
    ++counters_.self_suspected;
    return;
  }
  counters_.unusable += n;
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), unusable), candidates_.end());
}

// Whom it asked, or chose, has been drained meanwhile.
void SchedulerCore::BeginAnew(Round& round, Instant now, SchedulerEffects& effects) {
  ++counters_.begun_anew;
  const RequestMeta& request = *round.request;
  const int32_t attempt = round.attempt;
  Close(round);
  const Attempts* failed = attempts_.Find(request.id.value());
  if (failed == nullptr) return Begin(request, now, attempt, nullptr, effects);
  const Attempts copy = *failed;  // Begin may erase it
  Begin(request, now, attempt, &copy, effects);
}

// The winner has the reservation.
void SchedulerCore::CommitIfServing(Round& round, Instant now, SchedulerEffects& effects) {
  const InstanceId winner = round.fan_out.targets()[static_cast<size_t>(round.chosen)].instance;
  if (IsServing(winner)) return Commit(round, now, effects);
  SendCancel(winner, round.request->id, effects);
  BeginAnew(round, now, effects);
}

int SchedulerCore::HoldBackJoining(Instant now) {
  const auto full = [this](const Candidate& c) { return !slow_start_.Open(c.instance, c.load.requests); };
  const size_t n = static_cast<size_t>(std::count_if(candidates_.begin(), candidates_.end(), full));
  if (n == candidates_.size()) return -1;  // no one is left who is trusted with more
  slow_start_.CountHeldBack(n);
  std::erase_if(candidates_, full);
  int probe = -1;
  Duration longest;
  for (size_t k = 0; k < candidates_.size(); ++k) {
    const Candidate& c = candidates_[k];
    const auto waited = c.prediction == nullptr ? std::nullopt : slow_start_.ProbeDue(c.instance, c.load.requests, now);
    if (!waited || *waited <= longest) continue;
    longest = *waited;
    probe = static_cast<int>(k);
  }
  return probe;
}

EnqueueOrder SchedulerCore::OrderFor(const Round& round) const {
  const FanOut::Target& target = round.fan_out.targets()[static_cast<size_t>(round.chosen)];
  const RequestMeta& r = *round.request;
  EnqueueOrder order;
  order.decision = round.id;
  order.instance = target.instance;
  order.reservation = {r.id,
                       r.priority,
                       r.arrival,
                       r.prompt_tokens.value(),
                       round.query.expected_output.value(),
                       LengthKey{r.id, r.length_class, round.query.length_quantile, r.max_tokens, r.output_hint},
                       round.query.slo,
                       r.segments};
  order.predicted_on = target.prediction.versions;
  order.score = round.score;
  order.runner_up = round.runner_up;
  order.score_rule = round.score_rule;
  order.query = round.query;
  order.rule = options_.repick;
  return order;
}

void SchedulerCore::OnEnqueueReply(const EnqueueReply& reply, Instant now, SchedulerEffects& effects) {
  Round* round = Find(reply.decision);
  if (round == nullptr || !round->enqueued) {
    ++counters_.late_replies;
    return;
  }
  if (reply.accepted) return CommitIfServing(*round, now, effects);
  round->enqueued = false;
  round->repicked = true;
  ++counters_.repicks;
  round->fan_out.targets()[static_cast<size_t>(round->chosen)].prediction = reply.fresh;
  Choose(*round, now, effects);
}

void SchedulerCore::Commit(Round& round, Instant now, SchedulerEffects& effects) {
  const FanOut::Target& target = round.fan_out.targets()[static_cast<size_t>(round.chosen)];
  const RequestMeta& request = *round.request;
  DecisionRecord record;
  record.at = now;
  record.decision = round.id;
  record.request = request.id;
  record.instance = target.instance;
  record.policy = policy_->name();
  record.score = round.score;
  record.runner_up = round.runner_up;
  record.repicked = round.repicked;
  record.probe = round.probe;
  record.attempt = round.attempt;
  record.predicted = target.outcome == ReplyOutcome::kAnswered;
  if (record.predicted) {
    record.prediction = target.prediction;
    record.predictor = target.prediction.predictor;
    record.state_version = target.prediction.versions.state;
  }
  for (const FanOut::Target& t : round.fan_out.targets())
    record.unanswered += t.outcome == ReplyOutcome::kLate || t.outcome == ReplyOutcome::kUnreachable;
  ++counters_.decisions;
  if (slow_start_.active())
    slow_start_.OnAssigned(request.id, target.instance, record.predicted ? &record.prediction : nullptr, round.probe, now);
  const bool fresh =
      ledger_.Assign(request.id, {target.instance, static_cast<int32_t>(request.prompt_tokens.value()),
                                  static_cast<int32_t>(round.query.expected_output.value()),
                                  static_cast<int32_t>(request.prompt_tokens.value() - round.cached), request.length_class});
  FT_CHECK(fresh);  // a request is assigned once at a time
  if (policy_->needs() == PolicyNeeds::kLoads || prefilter_ != nullptr)
    prefixes_.Enter(target.instance, request, round.query.expected_output);
  Close(round);
  effects.Decided(record);
  effects.Dispatch(record.instance, request);
}

void SchedulerCore::OnFirstToken(RequestId request, Instant now) {
  ledger_.FirstToken(request);
  if (slow_start_.active()) slow_start_.OnFirstToken(request, now);
}

void SchedulerCore::OnFinished(RequestId request, TokenCount output, Instant now) {
  if (slow_start_.active()) slow_start_.OnFinished(request, output.value(), now);
  const auto was = ledger_.Release(request);
  if (!was) {
    ++counters_.unknown_outcomes;
    return;
  }
  attempts_.Erase(request.value());
  lengths_->Learn(was->length_class, output);
}

void SchedulerCore::OnCancelled(RequestId request, SchedulerEffects& effects) {
  if (slow_start_.active()) slow_start_.OnGone(request);
  attempts_.Erase(request.value());
  if (const auto was = ledger_.Release(request)) {
    SendCancel(was->instance, request, effects);
  } else {
    ++counters_.unknown_outcomes;
  }
}

void SchedulerCore::OnEngineFailure(const RequestMeta& request, OutcomeReason reason, Instant now, SchedulerEffects& effects) {
  const auto was = ledger_.Release(request.id);
  if (!was) {
    ++counters_.unknown_outcomes;
    return;
  }
  if (slow_start_.active()) slow_start_.OnGone(request.id);
  SendCancel(was->instance, request.id, effects);
  if (IsCrash(reason)) prefixes_.Clear(was->instance);
  if (IsDown(reason)) down_until_[was->instance.value()] = now + options_.down_backoff;
  Attempts* a = attempts_.Find(request.id.value());
  if (a == nullptr) {
    attempts_.Insert(request.id.value(), Attempts{});
    a = attempts_.Find(request.id.value());
  }
  a->excluded.push_back(was->instance);
  ++(IsCrash(reason) ? a->crashed : a->refused);
  if (a->crashed > options_.retry_max_crash || a->refused > options_.retry_max) {
    ++counters_.rejected_retries;
    attempts_.Erase(request.id.value());
    return effects.Reject(request.id, IsCrash(reason) ? OutcomeReason::kRetriesExhausted : reason);
  }
  ++counters_.retried;
  const Attempts copy = *a;  // Begin may erase it
  Begin(request, now, copy.crashed + copy.refused, &copy, effects);
}

SchedulerCore::Round& SchedulerCore::Acquire() {
  if (free_rounds_.empty()) {
    free_rounds_.push_back(static_cast<uint32_t>(rounds_.size()));
    rounds_.push_back(std::make_unique<Round>());
  }
  const uint32_t index = free_rounds_.back();
  free_rounds_.pop_back();
  Round& r = *rounds_[index];
  r.id = DecisionId(next_decision_++);
  r.attempt = 0;
  r.repicked = r.enqueued = r.probe = false;
  r.chosen = -1;
  r.opened = reservations_;
  open_.Insert(r.id.value(), index);
  return r;
}

SchedulerCore::Round* SchedulerCore::Find(DecisionId decision) {
  const uint32_t* index = open_.Find(decision.value());
  return index == nullptr ? nullptr : rounds_[*index].get();
}

void SchedulerCore::Close(Round& round) {
  const uint32_t* index = open_.Find(round.id.value());
  FT_CHECK(index != nullptr);
  free_rounds_.push_back(*index);
  open_.Erase(round.id.value());
}

}  // namespace foretoken
