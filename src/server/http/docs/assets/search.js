/** The search of the documentation: over headings and texts, in the index that the server makes. */
const root = new URL(document.body.dataset.site, location.href);
const form = document.querySelector("form");
const input = document.querySelector("#search");
const found = document.querySelector("#found");
const status = found.querySelector("p");
const list = found.querySelector("ol");
const resultsMax = 12;
const excerptLength = 160;

let index;
/** The sections of all pages; fetched once, and again after a failure. */
function load() {
  index ??= fetch(`${root.pathname}/search.json`)
    .then((response) => {
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      return response.json();
    })
    .then((pages) =>
      pages.flatMap(({ path, title, sections }) =>
        sections.map(([id, heading, text], order) => ({
          ...{
            title,
            heading,
            text,
            order,
            href: `${root.pathname}${path}${id && order > 0 ? `#${id}` : ""}`,
          },
          low: { title: title.toLowerCase(), heading: heading.toLowerCase(), text: text.toLowerCase() },
        })),
      ),
    );
  index.catch(() => {
    index = undefined;
  });
  return index;
}

/** 0 if a word is nowhere in the section; words in headings count most, beginnings of words more. */
function scoreOf({ low, order }, words) {
  let score = order === 0 ? 1 : 0;
  for (const word of words) {
    const begins = (text) => text.startsWith(word) || text.includes(` ${word}`);
    const inHeading = low.heading.includes(word) ? (begins(low.heading) ? 12 : 6) : 0;
    const inText = low.text.includes(word) ? (begins(low.text) ? 3 : 1) : 0;
    const inTitle = low.title.includes(word) ? 4 : 0;
    if (inHeading + inText + inTitle === 0) return 0;
    score += inHeading + inText + inTitle;
  }
  return score;
}

function marked(text, words) {
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return text.split(new RegExp(`(${escaped.join("|")})`, "i")).map((part, at) => {
    if (at % 2 === 0) return part;
    const mark = document.createElement("mark");
    mark.textContent = part;
    return mark;
  });
}

function excerptOf({ text, low }, words) {
  const places = words.map((word) => low.text.indexOf(word)).filter((place) => place >= 0);
  const start = Math.max(0, Math.min(...places, low.text.length) - 50);
  const from = places.length === 0 ? 0 : start;
  const excerpt = text.slice(from, from + excerptLength);
  return `${from > 0 ? "…" : ""}${excerpt}${from + excerptLength < text.length ? "…" : ""}`;
}

function element(tag, className, children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function shown(section, words) {
  const link = element("a", "", marked(section.heading || section.title, words));
  link.href = section.href;
  const page = section.order === 0 ? [] : [element("span", "page", [section.title])];
  return element("li", "", [link, ...page, element("p", "", marked(excerptOf(section, words), words))]);
}

async function search() {
  const asked = input.value;
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  found.hidden = words.length === 0;
  if (words.length === 0) return list.replaceChildren();
  try {
    const sections = await load();
    if (asked !== input.value) return;
    const hits = sections
      .map((section) => ({ section, score: scoreOf(section, words) }))
      .filter(({ score }) => score > 0)
      .sort((a, b) => b.score - a.score);
    const best = hits.slice(0, resultsMax);
    status.textContent =
      hits.length === 0
        ? "No section has all of these words."
        : `${hits.length} ${hits.length === 1 ? "section" : "sections"}${hits.length > best.length ? `, the best ${best.length}` : ""}`;
    list.replaceChildren(...best.map(({ section }) => shown(section, words)));
  } catch (error) {
    list.replaceChildren();
    status.textContent = `The search does not work now: ${error.message}`;
  }
}

form.hidden = false;
input.addEventListener("focus", () => load().catch(() => {}));
input.addEventListener("input", search);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  list.querySelector("a")?.click();
});
list.addEventListener("click", (event) => {
  if (event.target.closest("a")) found.hidden = true;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== input && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    input.focus();
  }
  if (event.key === "Escape") found.hidden = true;
});
