#include "integration/gateway/token_estimator.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

// Before anything is learnt: what byte-pair tokenizers of 128k entries give.
constexpr std::array<double, kTextClasses> kPrior = {4.3, 3.2, 3.4, 2.6};
// A chat template adds about this many tokens to a message.
constexpr int64_t kTokensPerPart = 4;
constexpr uint64_t kMemory = 64;  // prompts

}  // namespace

const TokenEstimator::Ratio* TokenEstimator::Find(ModelId model, TextClass text) const {
  const size_t index = std::min<size_t>(model.value(), kMostModels - 1);
  return index < models_.size() ? &models_[index][static_cast<size_t>(text)] : nullptr;
}

double TokenEstimator::BytesPerToken(ModelId model, TextClass text) const {
  const Ratio* r = Find(model, text);
  return r == nullptr || r->learnt == 0 ? kPrior[static_cast<size_t>(text)] : r->bytes_per_token;
}

TokenEstimator::Estimate TokenEstimator::Tokens(ModelId model, const PromptDigest& prompt) const {
  if (prompt.bytes() == 0) return {TokenCount(std::max<int64_t>(1, prompt.token_ids())), 0};
  const Ratio* r = Find(model, prompt.text_class());
  const double text = static_cast<double>(prompt.bytes()) / BytesPerToken(model, prompt.text_class());
  const int64_t tokens = std::llround(text) + kTokensPerPart * prompt.parts() + prompt.token_ids();
  return {TokenCount(std::max<int64_t>(1, tokens)), r == nullptr ? Ratio().error : r->error};
}

void TokenEstimator::Learn(ModelId model, TextClass text, int64_t bytes, int32_t parts, int64_t tokens) {
  const int64_t of_text = tokens - kTokensPerPart * parts;
  if (bytes < 16 || of_text < 1) return;  // the template outweighs the text
  const size_t index = std::min<size_t>(model.value(), kMostModels - 1);
  if (models_.size() <= index) models_.resize(index + 1);
  Ratio& r = models_[index][static_cast<size_t>(text)];
  const double seen = std::clamp(static_cast<double>(bytes) / static_cast<double>(of_text), 0.25, 64.0);
  if (r.learnt == 0) {
    r.bytes_per_token = seen;
  } else {
    const double rate = 1.0 / static_cast<double>(std::min(r.learnt + 1, kMemory));
    r.error += rate * (std::abs(seen / r.bytes_per_token - 1) - r.error);
    r.bytes_per_token += rate * (seen - r.bytes_per_token);
  }
  ++r.learnt;
  if (r.published == 0 || std::abs(r.bytes_per_token / r.published - 1) > 0.1) r.published = r.bytes_per_token;
}

void TokenEstimator::Segments(ModelId model, const PromptDigest& prompt, std::vector<PromptSegment>& out) const {
  out.clear();
  const Ratio* r = Find(model, prompt.text_class());
  const bool ids = prompt.bytes() == 0;
  const double prior = kPrior[static_cast<size_t>(prompt.text_class())];
  const double ratio = ids ? 1.0 : r == nullptr || r->published == 0 ? prior : r->published;
  out.reserve(prompt.blocks().size());
  for (const PromptDigest::Block& b : prompt.blocks())
    out.push_back({b.hash, TokenCount(std::max<int64_t>(1, std::llround(static_cast<double>(b.bytes) / ratio)))});
}

}  // namespace foretoken
