import { useSignal } from "@preact/signals";
import { tell } from "./toasts.tsx";

const copiedMs = 2_000;

/** A button that takes a text along. */
export function Copy({ text, what }: { text: string; what: string }) {
  const isCopied = useSignal(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      isCopied.value = true;
      setTimeout(() => {
        isCopied.value = false;
      }, copiedMs);
    } catch {
      // Without TLS browsers keep the clipboard to themselves, this machine apart.
      tell("The browser does not let this page copy. Select the text instead.", true);
    }
  };
  return (
    <button type="button" onClick={copy} aria-label={`Copy ${what}`}>
      {isCopied.value ? "Copied" : "Copy"}
    </button>
  );
}

/** Text to paste elsewhere, and a button that takes it along. */
export function Copyable({ text, label }: { text: string; label: string }) {
  return (
    <div class="copyable">
      <code>{text}</code>
      <Copy text={text} what={label} />
    </div>
  );
}
