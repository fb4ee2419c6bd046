/** Which command line is spoken. */
export interface Dialect {
  /** The base name of the program as invoked: the prefix of its messages (T-GEN-1). */
  readonly name: string;
  /** qemu-img's, argument for argument and byte for byte; else ours, which understands the same and more. */
  readonly qemu: boolean;
}
