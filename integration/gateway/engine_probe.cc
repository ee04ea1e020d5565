#include "integration/gateway/engine_probe.h"

#include <chrono>
#include <utility>

namespace foretoken {

void EngineProbe::Run(boost::asio::io_context& io, const Engine& engine, const ProbeQuestion& question, Duration deadline,
                      Done done) {
  auto probe = std::make_shared<EngineProbe>(io);
  probe->self_ = probe;
  probe->done_ = std::move(done);
  const bool post = !question.body.empty();
  probe->request_ = (post ? "POST " : "GET ") + engine.url.prefix + question.path +
                    " HTTP/1.1\r\nHost: " + engine.url.authority() +
                    "\r\nUser-Agent: foretoken\r\nAccept: */*\r\nConnection: close\r\n";
  if (post)
    probe->request_ += "Content-Type: application/json\r\nContent-Length: " + std::to_string(question.body.size()) + "\r\n";
  probe->request_ += "\r\n" + question.body;
  probe->link_ = std::make_shared<EngineLink>(io, *probe);
  probe->timer_.expires_after(std::chrono::nanoseconds(deadline.nanos()));
  probe->timer_.async_wait([weak = std::weak_ptr<EngineProbe>(probe)](const boost::system::error_code& code) {
    const auto self = weak.lock();
    if (!code && self != nullptr) self->End();
  });
  probe->link_->Connect(engine.endpoints.front(), *probe);
}

void EngineProbe::OnLinkOpen() {
  answer_.reached = true;
  link_->Send(request_, {});
}

void EngineProbe::OnLinkBytes() {
  if (!have_head_) {
    const std::string_view bytes = link_->pending();
    size_t from = 0, consumed = 0;
    std::string error;
    if (FindHeadEnd(bytes, from) == 0) return bytes.size() > kMostBytes ? End() : void();
    if (ParseResponseHead(bytes, head_, consumed, error) != HeadResult::kDone) return End();
    link_->Consume(consumed);
    have_head_ = true;
  }
  size_t n = link_->pending().size();
  const size_t all = n;
  bool end = false;
  if (head_.chunked) {
    const ChunkedDecoder::Step step = decoder_.Decode(link_->pending_data(), n);
    if (step.state == ChunkedDecoder::State::kBad) return End();
    n = step.payload;
    end = step.state == ChunkedDecoder::State::kDone;
  }
  answer_.body.append(link_->pending_data(), n);
  link_->Consume(all);
  if (head_.content_length && answer_.body.size() >= *head_.content_length) end = true;
  if (answer_.body.size() > kMostBytes) return End();
  if (end) {
    answer_.status = head_.status;
    End();
  }
}

void EngineProbe::OnLinkClosed(const EngineLink::Code&) {
  if (have_head_ && !head_.chunked && !head_.content_length) answer_.status = head_.status;
  answer_.closed = answer_.status == 0;
  End();
}

void EngineProbe::End() {
  const auto self = std::exchange(self_, nullptr);
  if (self == nullptr) return;
  timer_.cancel();
  link_->Orphan();
  link_->Close();
  std::exchange(done_, nullptr)(answer_);
}

}  // namespace foretoken
