#include "engine/models/scripted/text.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

namespace heddle::models {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_upper(char c) {
    return c >= 'A' && c <= 'Z';
}
bool is_alpha(char c) {
    return std::isalpha(static_cast<unsigned char>(c)) != 0;
}

// The letter under the accent for U+00C0..U+00FF (second byte after 0xC3); 0: none.
char base_letter(unsigned char second) {
    constexpr std::string_view kLetters{"aaaaaaaceeeeiiiidnooooo\0ouuuuy\0s", 32};
    const auto at = static_cast<std::size_t>(second & 0x1FU);
    return at < kLetters.size() ? kLetters[at] : '\0';
}

bool stays(char c) {
    constexpr std::string_view kOthers = "@._:-";
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           kOthers.find(c) != std::string_view::npos ||
           (static_cast<unsigned char>(c) & 0x80U) != 0;
}

std::vector<std::string_view> words_of(std::string_view text) {
    std::vector<std::string_view> words;
    constexpr std::string_view kBlanks = " \t\r\n,;!?()\"'";
    for (std::size_t at = 0; at < text.size();) {
        at = text.find_first_not_of(kBlanks, at);
        if (at == std::string_view::npos) {
            break;
        }
        const auto end = std::min(text.find_first_of(kBlanks, at), text.size());
        words.push_back(text.substr(at, end - at));
        at = end;
    }
    return words;
}

// `shape`: 9 stands for a digit, everything else for itself.
bool has_shape(std::string_view word, std::string_view shape) {
    return word.size() == shape.size() &&
           std::equal(word.begin(), word.end(), shape.begin(),
                      [](char c, char s) { return s == '9' ? is_digit(c) : c == s; });
}

bool is_code(std::string_view word) {
    return word.size() >= 5 && word.size() <= 16 &&
           std::any_of(word.begin(), word.end(), is_digit) &&
           std::any_of(word.begin(), word.end(), is_upper) &&
           std::all_of(word.begin(), word.end(), [](char c) { return is_digit(c) || is_upper(c); });
}

bool is_email(std::string_view word) {
    const auto at = word.find('@');
    return at != std::string_view::npos && at > 0 && word.find('.', at) != std::string_view::npos;
}

bool is_number(std::string_view word) {
    return !word.empty() && word.size() <= 15 && std::all_of(word.begin(), word.end(), is_digit);
}

bool fits(std::string_view kind, std::string_view word) {
    if (kind == "date") {
        return has_shape(word, "9999-99-99");
    }
    if (kind == "time") {
        return has_shape(word, "99:99");
    }
    if (kind == "code") {
        return is_code(word);
    }
    if (kind == "email") {
        return is_email(word);
    }
    if (kind == "number") {
        return is_number(word);
    }
    return kind == "word" && is_alpha(word.front());
}

bool is_capitalised(std::string_view word) {
    return !word.empty() &&
           (is_upper(word.front()) || static_cast<unsigned char>(word.front()) == 0xC3);
}

std::optional<std::string> find_name(std::string_view text) {
    // The text keeps its capitals, so the markers are compared word by word.
    constexpr std::array<std::string_view, 8> kMarkers{"for", "para", "llamo",  "soy",
                                                       "am",  "i'm",  "nombre", "is"};
    const auto words = words_of(text);
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
        const auto folded = fold(words[i]);
        const auto bare =
            std::string_view{folded}.substr(1, folded.size() < 2 ? 0 : folded.size() - 2);
        if (std::find(kMarkers.begin(), kMarkers.end(), bare) == kMarkers.end()) {
            continue;
        }
        std::string name;
        for (std::size_t k = i + 1; k < words.size() && k < i + 5 && is_capitalised(words[k]);
             ++k) {
            auto word = words[k];
            const bool last = word.ends_with('.');
            if (last) {
                word.remove_suffix(1);
            }
            name += (name.empty() ? "" : " ") + std::string{word};
            if (last) {
                break;
            }
        }
        if (!name.empty()) {
            return name;
        }
    }
    return std::nullopt;
}

}  // namespace

std::string_view clip(std::string_view text, std::size_t bytes_max) {
    if (text.size() <= bytes_max) {
        return text;
    }
    while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xC0U) == 0x80U) {
        --bytes_max;
    }
    return text.substr(0, bytes_max);
}

std::string fold(std::string_view text) {
    std::string out = " ";
    const auto add = [&out](char c) {
        if (c != ' ' || out.back() != ' ') {
            out += c;
        }
    };
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if ((byte == 0xC3 || byte == 0xC2) && i + 1 < text.size()) {
            const auto second = static_cast<unsigned char>(text[++i]);
            const char letter = byte == 0xC3 ? base_letter(second) : '\0';
            add(letter == '\0' ? ' ' : letter);  // 0xC2: inverted marks, no-break space
            continue;
        }
        add(stays(text[i]) ? static_cast<char>(std::tolower(byte)) : ' ');
    }
    add(' ');
    return out;
}

bool has_phrase(std::string_view text, std::string_view phrase) {
    while (!phrase.empty() && phrase.back() == ' ') {
        phrase.remove_suffix(1);
    }
    return !phrase.empty() && text.find(phrase) != std::string_view::npos;
}

std::string_view guess_language(std::string_view text) {
    constexpr std::array<std::string_view, 40> kSpanish{
        "hola",   "quiero",   "una",       "cita",    "que",    "servicios", "tienen", "necesito",
        "mi",     "cuanto",   "cuesta",    "gracias", "para",   "por",       "favor",  "el",
        "la",     "los",      "las",       "buenos",  "buenas", "dias",      "tardes", "es",
        "manana", "semana",   "si",        "con",     "del",    "horario",   "cual",   "como",
        "puedo",  "cancelar", "reagendar", "agendar", "numero", "ustedes",   "esta",   "de"};
    constexpr std::array<std::string_view, 32> kEnglish{
        "hello",  "hi",    "i",    "the",  "to",     "my",   "is",  "are",   "what", "your", "you",
        "need",   "want",  "book", "an",   "please", "for",  "how", "much",  "does", "do",   "can",
        "thanks", "thank", "when", "week", "next",   "like", "and", "would", "yes",  "of"};
    const auto folded = fold(clip(text, kMatchedBytesMax));
    int balance = text.find("\xC2\xBF") != std::string_view::npos ||
                          text.find("\xC2\xA1") != std::string_view::npos
                      ? 3
                      : 0;
    for (const auto word : words_of(folded)) {
        balance += static_cast<int>(std::count(kSpanish.begin(), kSpanish.end(), word));
        balance -= static_cast<int>(std::count(kEnglish.begin(), kEnglish.end(), word));
    }
    if (balance == 0) {
        return {};
    }
    return balance > 0 ? "es" : "en";
}

std::size_t characters(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    }));
}

std::optional<std::string> find_thing(std::string_view kind, std::string_view text) {
    text = clip(text, kMatchedBytesMax);
    if (kind == "name") {
        return find_name(text);
    }
    for (auto word : words_of(text)) {
        while (!word.empty() && (word.back() == '.' || word.back() == ':')) {
            word.remove_suffix(1);
        }
        if (!word.empty() && fits(kind, word)) {
            return std::string{word};
        }
    }
    return std::nullopt;
}

bool is_kind_of_thing(std::string_view kind) {
    constexpr std::array<std::string_view, 7> kKinds{"number", "word",  "date", "time",
                                                     "code",   "email", "name"};
    return std::find(kKinds.begin(), kKinds.end(), kind) != kKinds.end();
}

}  // namespace heddle::models
