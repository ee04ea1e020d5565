// Two workloads to have at hand: compact statistics of the Azure LLM inference traces 2023 (a conversation and a coding service,
// one hour each, 19,366 and 8,819 requests), as ProfileOf gives them; a test compares them with the traces where those are.
//
// Source: https://github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023 (P. Patel et al., "Splitwise", ISCA 2024).
// Licence of these figures, as of the data: CC-BY-4.0 (https://creativecommons.org/licenses/by/4.0/); changed: summarised.
#pragma once

#include <string_view>

#include "runtime/base/result.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {

const SynthProfile& AzureConv2023();
const SynthProfile& AzureCode2023();

// By name ("azure-conv-2023", "azure-code-2023"). Error: lists them.
Result<const SynthProfile*> EmbeddedProfile(std::string_view name);

}  // namespace foretoken
