/** Converts Markdown to harmless HTML: no scripts, forms, styles, or external images. */
import DOMPurify from "dompurify";
import { Marked } from "marked";

/** HTML within Markdown is shown as text. */
const marked = new Marked({
  renderer: {
    html: ({ text }) => text.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`),
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("rel", "noopener noreferrer nofollow");
    node.setAttribute("target", "_blank");
  }
  // A wide block scrolls, also by the keyboard.
  if (node.tagName === "PRE") node.setAttribute("tabindex", "0");
  if (node.tagName === "IMG" && !/^data:image\/(png|jpeg|gif|webp);/.test(node.getAttribute("src") ?? "")) {
    const said = document.createTextNode(`[image: ${node.getAttribute("alt") || "not shown"}]`);
    node.replaceWith(said);
  }
});

export function htmlOf(text: string): string {
  const html = marked.parse(text, { async: false, gfm: true, breaks: false });
  return DOMPurify.sanitize(html, {
    USE_PROFILES: { html: true },
    FORBID_TAGS: [
      "style",
      "form",
      "input",
      "button",
      "textarea",
      "select",
      "iframe",
      "video",
      "audio",
      "source",
    ],
    FORBID_ATTR: ["style", "id", "name", "srcset", "class"],
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);|#)/i,
  });
}
