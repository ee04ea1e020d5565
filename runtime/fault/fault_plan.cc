#include "runtime/fault/fault_plan.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace foretoken {
namespace {

Error Broken(const std::string& field, const std::string& rule) { return Error{field + ": " + rule}; }

bool IsProbability(double p) { return p >= 0 && p <= 1; }  // false for NaN

Status ValidateLaw(const std::string& name, const DelayLaw& law) {
  if (law.value < Duration()) return Broken(name, "must be >= 0");
  if (law.cap && *law.cap < Duration()) return Broken(name + ".cap", "must be >= 0");
  switch (law.kind) {
    case DelayLaw::Kind::kConstant: break;
    case DelayLaw::Kind::kUniform:
      if (law.min < Duration()) return Broken(name + ".min", "must be >= 0");
      if (law.max < law.min) return Broken(name + ".max", "must be >= min");
      break;
    case DelayLaw::Kind::kNormal:
      if (law.deviation < Duration()) return Broken(name + ".deviation", "must be >= 0");
      break;
    case DelayLaw::Kind::kLogNormal:
      if (!(law.sigma >= 0 && law.sigma <= 10)) return Broken(name + ".sigma", "must be between 0 and 10");
      break;
    case DelayLaw::Kind::kPareto:
      if (law.value == Duration()) return Broken(name + ".min", "must be > 0");
      if (!(law.shape > 0 && std::isfinite(law.shape))) return Broken(name + ".shape", "must be > 0");
      if (!law.cap) return Broken(name + ".cap", "is missing: a Pareto tail has no end");
      if (*law.cap < law.value) return Broken(name + ".cap", "must be >= min");
      break;
  }
  return {};
}

bool Fits(const std::optional<LinkRole>& rule, LinkRole role) {
  return rule ? *rule == role : role == LinkRole::kInstance || role == LinkRole::kSimulator;
}

bool Fits(const std::optional<LinkRole>& role, const std::string& pattern, const LinkEnd& end) {
  if (!Fits(role, end.role)) return false;
  return pattern == "*" || MatchesPattern(pattern, end.name);
}

Status ValidateWindow(const std::string& name, const PartitionWindow& w) {
  if (w.lasts <= Duration()) return Broken(name + ".lasts", "must be > 0");
  if (w.every && *w.every <= w.lasts) return Broken(name + ".every", "must be > lasts");
  return {};
}

}  // namespace

Status Validate(const LinkFaults& f) {
  for (const auto& [name, law] : {std::pair<const char*, const DelayLaw&>{"delay", f.delay},
                                  {"reorder_delay", f.reorder_delay},
                                  {"duplicate_delay", f.duplicate_delay}}) {
    Status status = ValidateLaw(name, law);
    if (!status.ok()) return status;
  }
  for (const auto& [name, p] : {std::pair<const char*, double>{"reorder_probability", f.reorder_probability},
                                {"duplicate_probability", f.duplicate_probability},
                                {"drop_probability", f.drop_probability}}) {
    if (!IsProbability(p)) return Broken(name, "must be between 0 and 1");
  }
  if (f.burst_loss) {
    const BurstLoss& b = *f.burst_loss;
    if (!IsProbability(b.enter) || !IsProbability(b.leave) || !IsProbability(b.loss_good) || !IsProbability(b.loss_bad))
      return Broken("burst_loss", "its probabilities must be between 0 and 1");
  }
  for (const PartitionWindow& p : f.partitions)
    if (const Status s = ValidateWindow("partitions", p); !s.ok()) return s;
  if (f.active)
    if (const Status s = ValidateWindow("active", *f.active); !s.ok()) return s;
  if (f.bytes_per_second < 0) return Broken("bytes_per_second", "must be >= 0");
  if (!(std::abs(f.clock.ppm) <= 100'000)) return Broken("clock.ppm", "must be between -100000 and 100000");
  return {};
}

const LinkFaults* FaultPlan::FaultsOf(const LinkEnd& from, const LinkEnd& to) const {
  for (const LinkRule& rule : links)
    if (Fits(rule.from, rule.from_name, from) && Fits(rule.to, rule.to_name, to)) return &rule.faults;
  return nullptr;
}

bool FaultPlan::Reaches(LinkRole from, LinkRole to) const {
  return std::any_of(links.begin(), links.end(), [&](const LinkRule& r) { return Fits(r.from, from) && Fits(r.to, to); });
}

ClockSkew FaultPlan::ClockOf(std::string_view instance) const {
  const LinkFaults* f = FaultsOf({LinkRole::kInstance, instance}, {LinkRole::kSimulator, instance});
  return f != nullptr ? f->clock : ClockSkew{};
}

std::optional<Instant> FaultPlan::End() const {
  if (empty()) return std::nullopt;
  Instant end;
  for (const LinkRule& rule : links) {
    LinkFaults always = rule.faults;  // what goes on outside partitions
    always.partitions.clear();
    always.clock = {};
    const bool only_partitions = always == LinkFaults{};
    if (!only_partitions && (!rule.faults.active || rule.faults.active->every)) return std::nullopt;
    if (rule.faults.active) end = std::max(end, rule.faults.active->from + rule.faults.active->lasts);
    for (const PartitionWindow& p : rule.faults.partitions) {
      if (p.every) return std::nullopt;
      end = std::max(end, p.from + p.lasts);
    }
  }
  for (const RestartRule& r : restarts) {
    if (r.every) return std::nullopt;
    end = std::max(end, r.at + r.downtime);
  }
  return end;
}

std::vector<RestartEvent> FaultPlan::RestartsOf(const std::vector<std::string>& instance_names, Instant until) const {
  std::vector<RestartEvent> events;
  for (const RestartRule& rule : restarts) {
    for (size_t i = 0; i < instance_names.size(); ++i) {
      if (!MatchesPattern(rule.instances, instance_names[i])) continue;
      for (Instant at = rule.at; at < until; at += *rule.every) {
        events.push_back({i, at, rule.downtime});
        if (!rule.every || *rule.every <= Duration() || *rule.every > until - at) break;
      }
    }
  }
  std::stable_sort(events.begin(), events.end(), [](const RestartEvent& a, const RestartEvent& b) {
    return std::tie(a.at, a.instance) < std::tie(b.at, b.instance);
  });
  return events;
}

bool MatchesPattern(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0;
  size_t star = std::string_view::npos, resume = 0;  // the latest '*', and where the name goes on if it takes one more
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace foretoken
