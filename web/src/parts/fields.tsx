/** Labelled fields of the forms in dialogs, each bound to a signal. */
import type { Signal } from "@preact/signals";
import type { InputHTMLAttributes } from "preact";

export function TextField(props: {
  label: string;
  value: Signal<string>;
  isEmail?: boolean;
  required?: boolean;
  maxLength?: number;
  pattern?: string;
}) {
  const { label, value, isEmail, ...rules } = props;
  const common = {
    ...rules,
    value: value.value,
    onInput(event: { currentTarget: HTMLInputElement }) {
      value.value = event.currentTarget.value;
    },
  };
  const input: InputHTMLAttributes<HTMLInputElement> = isEmail ? { type: "email", ...common } : common;
  return (
    <label class="field">
      <span>{label}</span>
      <input {...input} />
    </label>
  );
}

export function NumberField(props: { label: string; value: Signal<number>; min: number; max: number }) {
  const { label, value, min, max } = props;
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        {...{ min, max }}
        value={value.value}
        onInput={(event) => {
          value.value = Number(event.currentTarget.value);
        }}
      />
    </label>
  );
}

/** A choice among numbers, such as times or values of an enum. */
export function ChoiceField(props: {
  label: string;
  value: Signal<number>;
  options: readonly { value: number; label: string }[];
}) {
  const { label, value, options } = props;
  return (
    <label class="field">
      <span>{label}</span>
      <select
        value={String(value.value)}
        onChange={(event) => {
          value.value = Number(event.currentTarget.value);
        }}
      >
        {options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Any number of choices. */
export function Checks<T extends string | number>(props: {
  legend: string;
  chosen: Signal<ReadonlySet<T>>;
  options: readonly { value: T; label: string; hint?: string }[];
}) {
  const { legend, chosen, options } = props;
  return (
    <fieldset class="checks">
      <legend>{legend}</legend>
      {options.map(({ value, label, hint }) => (
        <label key={value}>
          <input
            type="checkbox"
            checked={chosen.value.has(value)}
            onChange={(event) => {
              const next = new Set(chosen.value);
              if (event.currentTarget.checked) next.add(value);
              else next.delete(value);
              chosen.value = next;
            }}
          />
          <span>
            <b>{label}</b>
            {hint && `: ${hint}`}
          </span>
        </label>
      ))}
    </fieldset>
  );
}
