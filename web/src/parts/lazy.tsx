/** Views in separate files, loaded when first shown. */
import { type Signal, signal } from "@preact/signals";
import type { ComponentType, JSX } from "preact";
import { Empty } from "./empty.tsx";

type Loaded<Props> = { view?: ComponentType<Props>; hasFailed: boolean };

/** The component returned by `load`; until then, or after an error, a text. */
export function lazy<Props extends object>(
  load: () => Promise<ComponentType<Props>>,
): (props: Props) => JSX.Element {
  const loaded: Signal<Loaded<Props>> = signal({ hasFailed: false });
  let isAsked = false;
  const ask = () => {
    isAsked = true;
    load().then(
      (view) => {
        loaded.value = { view, hasFailed: false };
      },
      () => {
        isAsked = false;
        loaded.value = { hasFailed: true };
      },
    );
  };
  return (props) => {
    const { view: View, hasFailed } = loaded.value;
    if (View) return <View {...props} />;
    if (hasFailed) {
      return (
        <Empty title="This part of the page did not come">
          <p>The server does not answer, or has another version by now.</p>
          <button type="button" class="primary" onClick={() => location.reload()}>
            Load the page anew
          </button>
        </Empty>
      );
    }
    if (!isAsked) ask();
    return (
      <p class="empty loading" role="status">
        Reading…
      </p>
    );
  };
}
