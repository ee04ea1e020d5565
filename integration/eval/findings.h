// Findings: sentences computed from the figures of an evaluation. Every value of every varied dimension but topology, workload and
// rate is compared with a reference - the first value of its list; for policies the best of the simple ones, chosen per figure -
// seed by seed. What is better, worse and a tie is said alike.
#pragma once

#include <string>
#include <vector>

#include "integration/eval/evaluation.h"

namespace foretoken {

struct FindingGroup {
  std::string title;                   // "faults against none"
  std::string overview;                // how many comparisons went which way
  std::vector<std::string> sentences;  // one per compared value and circumstance
};

std::vector<FindingGroup> FindingsOf(const Evaluation& evaluation);

// Whether a policy decides by predictions of what would happen.
bool IsPredictive(const std::string& policy);

}  // namespace foretoken
