#include "runtime/workload/make_length_estimator.h"

#include <algorithm>
#include <string>

#include "runtime/base/id_map.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/length_distribution.h"

namespace foretoken {
namespace {

constexpr LengthEstimatorKind kKinds[] = {LengthEstimatorKind::kOracle, LengthEstimatorKind::kMaxTokens,
                                          LengthEstimatorKind::kHint, LengthEstimatorKind::kMean,
                                          LengthEstimatorKind::kSampled};

// Total's contract, whatever the estimate: above what was generated, within the limit.
TokenCount Within(TokenCount estimate, const LengthKey& key, TokenCount generated) {
  const int64_t total = std::max(estimate.value(), generated.value() + 1);
  if (key.max_tokens && *key.max_tokens > generated) return TokenCount(std::min(total, key.max_tokens->value()));
  return TokenCount(total);
}

class MaxTokensEstimator : public LengthEstimator {
 public:
  explicit MaxTokensEstimator(TokenCount fallback) : fallback_(fallback) {}
  TokenCount Total(const LengthKey& key, TokenCount generated) const override {
    return Within(key.max_tokens.value_or(fallback_), key, generated);
  }
  void Learn(uint32_t, TokenCount) override {}
  uint64_t version() const override { return 0; }

 private:
  TokenCount fallback_;
};

// What was learned, per class and over all.
class LearningEstimator : public LengthEstimator {
 public:
  explicit LearningEstimator(const LengthEstimatorOptions& options)
      : prior_(LengthDistribution::FromQuantiles(options.prior_quantiles)),
        prior_weight_(options.prior_weight),
        max_classes_(options.max_classes),
        all_(prior_) {}

  void Learn(uint32_t length_class, TokenCount output) override {
    all_.Learn(output);
    if (length_class < max_classes_) {
      if (length_class >= classes_.size()) classes_.resize(length_class + 1);
      if (classes_[length_class] == nullptr) {
        classes_[length_class] = std::make_unique<LengthDistribution>();
        classes_[length_class]->Rebuild(all_, prior_weight_);
      }
      classes_[length_class]->Learn(output);
    }
    if (static_cast<double>(++pending_) < std::max(16.0, all_.weight() / 16)) return;
    pending_ = 0;
    ++version_;
    all_.Rebuild(prior_, prior_weight_);
    for (const auto& c : classes_)
      if (c != nullptr) c->Rebuild(all_, prior_weight_);
  }

  uint64_t version() const override { return version_; }

 protected:
  const LengthDistribution& Of(uint32_t length_class) const {
    return length_class < classes_.size() && classes_[length_class] != nullptr ? *classes_[length_class] : all_;
  }

 private:
  LengthDistribution prior_;
  double prior_weight_;
  size_t max_classes_;
  LengthDistribution all_;
  std::vector<std::unique_ptr<LengthDistribution>> classes_;  // by class; null: nothing learned
  size_t pending_ = 0;
  uint64_t version_ = 0;
};

class MeanEstimator : public LearningEstimator {
 public:
  using LearningEstimator::LearningEstimator;
  TokenCount Total(const LengthKey& key, TokenCount generated) const override {
    return Within(Of(key.length_class).MeanAbove(generated), key, generated);
  }
};

class SampledEstimator : public LearningEstimator {
 public:
  using LearningEstimator::LearningEstimator;
  TokenCount Total(const LengthKey& key, TokenCount generated) const override {
    return Within(Of(key.length_class).QuantileAbove(key.quantile, generated), key, generated);
  }
};

class HintEstimator : public SampledEstimator {
 public:
  using SampledEstimator::SampledEstimator;
  TokenCount Total(const LengthKey& key, TokenCount generated) const override {
    if (key.hint && *key.hint > generated) return Within(*key.hint, key, generated);
    return SampledEstimator::Total(key, generated);
  }
};

class OracleEstimator : public SampledEstimator {
 public:
  explicit OracleEstimator(const LengthEstimatorOptions& options) : SampledEstimator(options) {
    for (const auto& [request, length] : options.truth) truth_.Insert(request.value(), length);
  }
  TokenCount Total(const LengthKey& key, TokenCount generated) const override {
    const TokenCount* length = truth_.Find(key.request.value());
    return length != nullptr ? Within(*length, key, generated) : SampledEstimator::Total(key, generated);
  }

 private:
  IdMap<TokenCount> truth_;
};

Status Validate(const LengthEstimatorOptions& o) {
  if (o.max_tokens_default.value() < 1) {
    return Error{"max_tokens_default = " + std::to_string(o.max_tokens_default.value()) + ": must be at least 1"};
  }
  if (!(o.prior_weight > 0)) return Error{"prior_weight = " + std::to_string(o.prior_weight) + ": must be above 0"};
  if (o.prior_quantiles.size() < 2 || o.prior_quantiles.front() < 1 ||
      !std::is_sorted(o.prior_quantiles.begin(), o.prior_quantiles.end())) {
    return Error{"prior_quantiles: must be at least 2 lengths, ascending, from 1 token on"};
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<LengthEstimator>> MakeLengthEstimator(LengthEstimatorKind kind, const LengthEstimatorOptions& given) {
  LengthEstimatorOptions options = given;
  if (options.prior_quantiles.empty()) options.prior_quantiles = AzureConv2023().output_tokens;
  if (const Status s = Validate(options); !s.ok()) return s.error();
  std::unique_ptr<LengthEstimator> made;
  switch (kind) {
    case LengthEstimatorKind::kOracle: made = std::make_unique<OracleEstimator>(options); break;
    case LengthEstimatorKind::kMaxTokens: made = std::make_unique<MaxTokensEstimator>(options.max_tokens_default); break;
    case LengthEstimatorKind::kHint: made = std::make_unique<HintEstimator>(options); break;
    case LengthEstimatorKind::kMean: made = std::make_unique<MeanEstimator>(options); break;
    case LengthEstimatorKind::kSampled: made = std::make_unique<SampledEstimator>(options); break;
  }
  return made;
}

std::string_view LengthEstimatorName(LengthEstimatorKind kind) {
  switch (kind) {
    case LengthEstimatorKind::kOracle: return "oracle";
    case LengthEstimatorKind::kMaxTokens: return "max_tokens";
    case LengthEstimatorKind::kHint: return "hint";
    case LengthEstimatorKind::kMean: return "mean";
    case LengthEstimatorKind::kSampled: return "sampled";
  }
  return "unknown";
}

Result<LengthEstimatorKind> ParseLengthEstimatorKind(std::string_view name) {
  std::string known;
  for (const LengthEstimatorKind kind : kKinds) {
    if (LengthEstimatorName(kind) == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(LengthEstimatorName(kind));
  }
  return Error{"length estimator \"" + std::string(name) + "\": unknown; known are " + known};
}

}  // namespace foretoken
