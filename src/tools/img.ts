/** The program `diskwright-img`: qemu-img's command line. */
import { main } from './main.ts';

void main(true);
