# Domains by experts, one block of marks.tsv a router, in a grid; the last block is the colour scale. An image needs two
# rows and two columns, so that single ones come REPEAT times.
set palette defined (0 "#440154", 1 "#482878", 2 "#3e4989", 3 "#31688e", 4 "#26828e", 5 "#1f9e89", 6 "#35b779", 7 "#6ece58", 8 "#b5de2b", 9 "#fde725")
set cbrange [LOAD_LOW:LOAD_HIGH]
unset grid
unset border
do for [p = 1:int(N_PANELS)] {
    load "panel.gp"
    unset xtics
    if (X_TIC[p] > 0) { set xtics X_TIC[p] out nomirror scale 0.5 offset 0, 0.4 textcolor rgb "#4b5563" font "Inter,11" }
    plot "marks.tsv" index p - 1 matrix using (($1 + 0.5) / REPEAT_X[p] - 0.5):(($2 + 0.5) / REPEAT_Y[p] - 0.5):3 with image
}
