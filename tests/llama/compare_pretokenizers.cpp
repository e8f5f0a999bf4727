// Compares the matcher of the pre-tokenizers with std::regex on random texts. Each line of the standard input is
// `narrow` or `wide`, the number of characters of an expression, and the characters as numbers. Prints each difference.
#include "pretokenizer_regex.hpp"

#include <cstdint>
#include <iostream>
#include <random>
#include <regex>
#include <string>
#include <vector>

template <typename CharT> std::vector<uint32_t> numbers(const std::basic_string<CharT> & s) {
    std::vector<uint32_t> result;
    for (CharT c : s) {
        result.push_back(sizeof(CharT) == 1 ? (unsigned char) c : (uint32_t) c);
    }
    return result;
}

template <typename CharT>
std::vector<size_t> expected(const std::basic_string<CharT> & text, const std::basic_regex<CharT> & regex) {
    std::vector<size_t> lengths;
    std::regex_iterator<typename std::basic_string<CharT>::const_iterator> it(text.begin(), text.end(), regex), end;
    size_t last = 0;
    for (; it != end; ++it) {
        const size_t place = it->position();
        if (place > last) {
            lengths.push_back(place - last);
        }
        lengths.push_back(it->length());
        last = place + it->length();
    }
    if (last < text.size()) {
        lengths.push_back(text.size() - last);
    }
    return lengths;
}

template <typename CharT> int compare(const std::basic_string<CharT> & pattern, const std::vector<uint32_t> & alphabet) {
    const std::basic_regex<CharT> regex(pattern, std::regex_constants::optimize | std::regex_constants::nosubs);
    cyllama::pretokenizer_regex own(numbers(pattern));
    std::mt19937 random(1);
    int different = 0;
    for (int round = 0; round < 400; round++) {
        std::basic_string<CharT> text;
        CharT c = (CharT) alphabet[random() % alphabet.size()];
        for (size_t n = random() % 60; n > 0; n--) {
            if (random() % 3) { // runs of a character as well
                c = (CharT) alphabet[random() % alphabet.size()];
            }
            text.push_back(c);
        }
        std::vector<size_t> found;
        own.split(numbers(text), 0, text.size(), found);
        different += found != expected(text, regex);
    }
    return different;
}

int main() {
    std::vector<uint32_t> narrow, wide;
    for (char c : std::string(" a'sStTrRevlLmMdDxAZ0129.,!?\n\r\t/-_$+<|(:>IGBCH\v")) {
        narrow.push_back(c);
        wide.push_back(c);
    }
    narrow.insert(narrow.end(), {0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD5});
    wide.insert(wide.end(), {0xE9, 0x3042, 0x4E00, 0x9FA5, 0xAC00, 0x3002, 0xFF0C, 0x2026, 0x0964, 0x10400});
    std::string kind;
    size_t n;
    for (int line = 1; std::cin >> kind >> n; line++) {
        std::vector<uint32_t> pattern(n);
        for (auto & c : pattern) {
            std::cin >> c;
        }
        const int different = kind == "narrow"
            ? compare(std::string(pattern.begin(), pattern.end()), narrow)
            : compare(std::wstring(pattern.begin(), pattern.end()), wide);
        if (different > 0) {
            std::cout << "expression " << line << ": " << different << " texts differ\n";
        }
    }
}
