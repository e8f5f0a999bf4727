// Chat templates: upstream's `common_chat_templates` without the parts of a request that only the server uses.
#pragma once

#include "chat.h"

#include <string>
#include <utility>
#include <vector>

namespace cyllama {

class chat_templates {
  public:
    // `text` is a Jinja template, the name of one of llama.cpp's own, or empty: the model's.
    chat_templates(const llama_model * model, const std::string & text, bool jinja)
        : jinja(jinja), add_bos(llama_vocab_get_add_bos(llama_model_get_vocab(model))),
          add_eos(llama_vocab_get_add_eos(llama_model_get_vocab(model))),
          handle(common_chat_templates_init(model, text)) {}

    std::string source() const { return common_chat_templates_source(handle.get()); }

    std::string apply(const std::vector<std::pair<std::string, std::string>> & messages, bool generate) const {
        common_chat_templates_inputs inputs;
        inputs.use_jinja             = jinja;
        inputs.add_bos               = add_bos;
        inputs.add_eos               = add_eos;
        inputs.add_generation_prompt = generate;
        for (const auto & [role, content] : messages) {
            common_chat_msg message;
            message.role    = role;
            message.content = content;
            inputs.messages.push_back(std::move(message));
        }
        return common_chat_templates_apply(handle.get(), inputs).prompt;
    }

  private:
    bool                      jinja, add_bos, add_eos;
    common_chat_templates_ptr handle;
};

} // namespace cyllama
