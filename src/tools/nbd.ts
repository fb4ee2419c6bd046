/** The program `diskwright-nbd`: qemu-nbd's command line. */
import { nbdMain } from './nbd/main.ts';

void nbdMain();
