#include "integration/engines/vllm/text_binding.h"

#include <algorithm>
#include <utility>

namespace foretoken {
namespace {

size_t CommonPrefix(const std::vector<BlockHash>& a, const std::vector<BlockHash>& b) {
  const auto [x, y] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(x - a.begin());
}

int64_t TokensOf(const std::vector<PromptSegment>& text) {
  int64_t tokens = 0;
  for (const PromptSegment& s : text) tokens += s.length.value();
  return tokens;
}

}  // namespace

// The hashes are chained: what does not know a block of text knows none behind it.
const TextBinding::Entry* TextBinding::Deepest(const std::vector<PromptSegment>& text, size_t* at) const {
  const Entry* found = nullptr;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto entry = entries_.find(text[i].content);
    if (entry == entries_.end()) break;
    found = &entry->second;
    if (at != nullptr) *at = i;
  }
  return found;
}

void TextBinding::OnArrived(const std::vector<PromptSegment>& text, int64_t prompt_tokens, int32_t block_tokens,
                            const std::vector<BlockHash>& blocks) {
  if (text.empty() || blocks.empty()) return;
  size_t known = 0;
  if (const Entry* deepest = Deepest(text, &known)) {
    Entry& entry = entries_[text[known].content];
    entry.shared = CommonPrefix(deepest->prompt->blocks, blocks);
    entry.parted = entry.parted || known + 1 < text.size();
    ++known;
  }
  const auto prompt = std::make_shared<Prompt>(Prompt{blocks, 0});
  const double scale = static_cast<double>(prompt_tokens) / static_cast<double>(std::max<int64_t>(1, TokensOf(text)));
  int64_t tokens = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    tokens += text[i].length.value();
    if (i < known && i + 1 < text.size()) continue;
    const auto estimated = static_cast<size_t>(static_cast<double>(tokens) * scale / block_tokens);
    Entry entry{prompt, std::min(estimated, blocks.size()), 0, false, i + 2 >= text.size()};
    if (entries_.insert_or_assign(text[i].content, std::move(entry)).second) order_.push_back(text[i].content);
  }
  for (; order_.size() > kMost; order_.pop_front()) entries_.erase(order_.front());
}

void TextBinding::OnEnded(const std::vector<PromptSegment>& text, int64_t all_tokens, const std::vector<BlockHash>& behind) {
  if (text.empty()) return;
  const auto entry = entries_.find(text.back().content);
  if (entry == entries_.end() || !entry->second.is_end || entry->second.prompt->tokens > 0) return;
  Prompt& prompt = *entry->second.prompt;
  prompt.blocks.insert(prompt.blocks.end(), behind.begin(), behind.end());
  prompt.tokens = all_tokens;
}

std::span<const BlockHash> TextBinding::Expected(const std::vector<PromptSegment>& text, int64_t prompt_tokens,
                                                 int32_t block_tokens) const {
  const Entry* entry = Deepest(text);
  if (entry == nullptr) return {};
  const std::vector<BlockHash>& blocks = entry->prompt->blocks;
  size_t count = entry->parted ? entry->shared : entry->estimated;
  // The whole of an earlier prompt, and more: the next turn, which holds what was answered.
  if (entry->is_end && entry->prompt->tokens > 0 && prompt_tokens > entry->prompt->tokens) count = blocks.size();
  const auto most = static_cast<size_t>(std::max<int64_t>(0, prompt_tokens) / block_tokens);
  return {blocks.data(), std::min({count, blocks.size(), std::max<size_t>(most, 1)})};
}

}  // namespace foretoken
