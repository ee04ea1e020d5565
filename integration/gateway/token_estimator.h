// TokenEstimator: how many tokens a prompt has, without its tokenizer: bytes per token by model and kind of text, learnt from the
// usage that engines report. Prompts of token ids are counted exactly. Also makes of a prompt's blocks the segments by which
// mirrors recognise shared prefixes. Pure; memory is bounded.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "integration/gateway/prompt_digest.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/request.h"

namespace foretoken {

class TokenEstimator {
 public:
  struct Estimate {
    TokenCount tokens;
    double error = 0;  // expected relative error, 0: exact
  };

  Estimate Tokens(ModelId model, const PromptDigest& prompt) const;
  // The engine says that this prompt had `tokens`.
  void Learn(ModelId model, TextClass text, int64_t bytes, int32_t parts, int64_t tokens);
  // Runs of tokens for the prompt's blocks. They follow a ratio that moves only in steps of a tenth or more, so that equal text keeps equal
  // segments while the ratio is being learnt.
  void Segments(ModelId model, const PromptDigest& prompt, std::vector<PromptSegment>& out) const;

  double BytesPerToken(ModelId model, TextClass text) const;

 private:
  static constexpr size_t kMostModels = 256;  // models from this number on share one set of ratios
  struct Ratio {
    double bytes_per_token = 0;  // 0: nothing learnt
    double error = 0.25;
    double published = 0;
    uint64_t learnt = 0;
  };
  using Ratios = std::array<Ratio, kTextClasses>;

  const Ratio* Find(ModelId model, TextClass text) const;

  std::vector<Ratios> models_;
};

}  // namespace foretoken
