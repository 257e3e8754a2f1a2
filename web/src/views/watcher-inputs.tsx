/** Inputs of the watcher's form, each for one field of the draft. */
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import type { Draft } from "./watcher-draft.ts";

export type FieldsProps = { draft: Signal<Draft> };

/** Attributes for linking an input to its label and hint. */
type Ties = { id: string; "aria-describedby"?: string };

export function Field(props: { label: string; hint?: string; children: (ties: Ties) => ComponentChildren }) {
  const id = useId();
  const hintId = `${id}-hint`;
  return (
    <div class="field">
      <label for={id}>{props.label}</label> {props.hint && <small id={hintId}>{props.hint}</small>}
      {props.children(props.hint ? { id, "aria-describedby": hintId } : { id })}
    </div>
  );
}

export function Text(
  props: FieldsProps & {
    name: keyof Draft;
    label: string;
    hint?: string;
    required?: boolean;
    mono?: boolean;
    /** Suggested values, besides free text. */
    offers?: readonly { value: string; label: string }[];
  },
) {
  const { draft, name } = props;
  return (
    <Field label={props.label} {...(props.hint ? { hint: props.hint } : {})}>
      {(ties) => (
        <>
          <input
            {...ties}
            class={props.mono ? "mono" : ""}
            value={draft.value[name]}
            required={props.required ?? false}
            list={props.offers ? `${ties.id}-offers` : undefined}
            spellcheck={false}
            autocomplete="off"
            onInput={(event) => set(draft, name, event.currentTarget.value)}
          />
          {props.offers && (
            <datalist id={`${ties.id}-offers`}>
              {props.offers.map(({ value, label }) => (
                <option key={value} value={value} label={label} />
              ))}
            </datalist>
          )}
        </>
      )}
    </Field>
  );
}

export function Choice(
  props: FieldsProps & {
    name: keyof Draft;
    label: string;
    choices: readonly { value: number; label: string }[];
  },
) {
  const { draft, name } = props;
  return (
    <Field label={props.label}>
      {(ties) => (
        <select
          {...ties}
          value={draft.value[name]}
          onChange={(event) => set(draft, name, event.currentTarget.value)}
        >
          {props.choices.map(({ value, label }) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** Changes one field of the draft. */
export function set(draft: Signal<Draft>, name: keyof Draft, value: string): void {
  draft.value = { ...draft.value, [name]: value };
}
