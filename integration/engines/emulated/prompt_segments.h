// What the prompt of an OpenAI call is made of, for prefix identity: pieces of equal text are equal content.
#pragma once

#include <cstdint>
#include <vector>

#include "integration/load/openai_text.h"
#include "runtime/model/request.h"

namespace foretoken {

// Of a prompt: as many as there are ids when it comes as token ids, else one per four bytes; at least one.
int64_t PromptTokensOf(const EngineCall& call);
std::vector<PromptSegment> SegmentsOf(const EngineCall& call, int64_t tokens);

}  // namespace foretoken
