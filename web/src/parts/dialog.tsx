/**
 * A single dialog in the browser's own element, which keeps the focus, closes on Escape, and
 * returns the focus.
 */
import { signal } from "@preact/signals";
import type { ComponentChildren, VNode } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { attempt } from "./toasts.tsx";

const current = signal<VNode | undefined>(undefined);

export function openDialog(content: VNode): void {
  current.value = content;
}

export function closeDialog(): void {
  current.value = undefined;
}

/** The element of the open dialog. */
export function DialogPlace() {
  return <>{current.value}</>;
}

export function Dialog(props: { title: string; class?: string; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useLayoutEffect(() => {
    const opener = document.activeElement as HTMLElement | null;
    element.current?.showModal();
    return () => opener?.focus();
  }, []);
  return (
    <dialog
      ref={element}
      class={props.class}
      aria-labelledby={titleId}
      onClose={closeDialog}
      // A press outside closes the dialog; a selection begun inside does not.
      onMouseDown={(event) => event.target === element.current && closeDialog()}
    >
      <div class="dialog-body">
        <header>
          <h2 id={titleId}>{props.title}</h2>
          <button type="button" class="plain close" aria-label="Close" onClick={closeDialog}>
            ×
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

/**
 * The end of a form in a dialog: what went wrong, a button that closes, and the button that acts.
 */
export function DialogEnd(props: { action: string; error?: string; isDisabled?: boolean }) {
  return (
    <>
      {props.error && (
        <p class="error" role="alert">
          {props.error}
        </p>
      )}
      <footer>
        <button type="button" onClick={closeDialog}>
          Cancel
        </button>
        <button type="submit" class="primary" disabled={props.isDisabled ?? false}>
          {props.action}
        </button>
      </footer>
    </>
  );
}

/** Asks for a confirmation of an irreversible action. */
export function confirm(asked: {
  title: string;
  text: ComponentChildren;
  action: string;
  act: () => Promise<string | undefined>;
}): void {
  const act = async () => {
    closeDialog();
    await attempt(asked.act);
  };
  openDialog(
    <Dialog title={asked.title} class="narrow">
      <p>{asked.text}</p>
      <footer>
        <button type="button" onClick={closeDialog}>
          Keep it
        </button>
        <button type="button" class="danger" onClick={act}>
          {asked.action}
        </button>
      </footer>
    </Dialog>,
  );
}
