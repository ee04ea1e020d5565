// Whether two judges rank candidates alike: what matters for choosing, where absolute errors need not.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace foretoken {

// Spearman's rank correlation, -1..1: Pearson's correlation of the ranks, equal values sharing the mean of their ranks. Absent
// for fewer than two pairs, and when all values on one side are equal (there is no ranking to agree with). Sizes must be equal.
std::optional<double> Spearman(const std::vector<double>& a, const std::vector<double>& b);

// Ranks from 1, ascending; equal values share the mean of theirs.
std::vector<double> Ranks(const std::vector<double>& values);

// Agree@1: the share of questions for which both judges find the same candidate best (the lowest score). Where either judge has
// several best ones, they agree if any is common.
class AgreeAtOne {
 public:
  // Scores of the same candidates in the same order; no candidates: no question.
  void Add(const std::vector<double>& a, const std::vector<double>& b);
  void Add(bool agree) {
    ++questions_;
    if (agree) ++agreed_;
  }
  size_t questions() const { return questions_; }
  std::optional<double> Share() const;

 private:
  size_t questions_ = 0;
  size_t agreed_ = 0;
};

}  // namespace foretoken
