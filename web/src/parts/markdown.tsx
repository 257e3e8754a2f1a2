/** Markdown of agents; the converter is loaded on demand and sanitizes the HTML. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

export function Markdown({ text }: { text: string }) {
  const html = useSignal<string | undefined>(undefined);
  useEffect(() => {
    let isGone = false;
    void import("../data/markdown.ts").then(({ htmlOf }) => {
      if (!isGone) html.value = htmlOf(text);
    });
    return () => {
      isGone = true;
    };
  }, [text]);
  if (html.value === undefined) return <pre class="markdown">{text}</pre>;
  return <div class="markdown" dangerouslySetInnerHTML={{ __html: html.value }} />;
}
